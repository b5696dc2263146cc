"""Names of keys: what a record writes is read as it was meant, whatever accounts are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.records.key_name import GLOBAL, KeyName, is_key_name

ACCOUNTS = st.text(st.characters(blacklist_categories=("Z", "C"), blacklist_characters=":"), min_size=1, max_size=20)


@given(st.none() | ACCOUNTS, st.sampled_from(["", "epoch 2", "gumbel dt1-01234567", "global"]))
def test_names_are_read_as_they_are_written(account: str | None, of_spec: str) -> None:
    name = KeyName(account, of_spec)
    assert is_key_name(str(name)) and KeyName.read(str(name)) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("global", GLOBAL),
        ("tenant:global", KeyName("global")),
        ("epoch 3 global", KeyName(None, "epoch 3")),
        ("epoch 3 tenant:epoch", KeyName("epoch", "epoch 3")),
    ],
)
def test_forms_on_record_stay(written: str, name: KeyName) -> None:
    assert str(name) == written and KeyName.read(written) == name


@pytest.mark.parametrize("written", ["", "acme", "tenant:", "Global", "tenant acme"])
def test_what_is_no_name_of_a_key_is_never_the_global_key(written: str) -> None:
    assert not is_key_name(written)
    assert not KeyName.read(written).is_global
