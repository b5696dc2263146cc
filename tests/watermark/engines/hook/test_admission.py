"""What a request may ask, and what the operator's policy makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.engines.operator import spec_of
from watermark.engines.hook.admission import MARK, SUBKEY, TENANT, Admitted, Decoding, admit
from watermark.engines.hook.settings import Settings
from watermark.errors import DyetraceError

TENANTS = spec_of(global_share=0.5)
GREEN = spec_of(scheme="green_list", parameters={"gamma": 0.5, "delta": 2.0}, global_share=0.5)


def _admit(
    arguments: dict[str, Any] | None, decoding: Decoding | None = None, spec: Any = TENANTS, **fields: Any
) -> Admitted:
    settings = Settings(spec="s", key="k", **fields)
    return admit(arguments, Decoding() if decoding is None else decoding, settings, spec)


def test_a_request_is_its_accounts() -> None:
    assert _admit({TENANT: "acme"}) == Admitted("acme")
    assert _admit({TENANT: "acme"}, tenants=["acme"]) == Admitted("acme")


def test_arguments_of_others_are_none_of_ours() -> None:
    assert _admit({TENANT: "acme", "top_secret": 1, "dyetracer": 2}) == Admitted("acme")


@pytest.mark.parametrize("name", ["dyetrace_key", "dyetrace_tenants", "dyetrace_"])
def test_an_argument_that_looks_like_ours_and_is_not_is_refused(name: str) -> None:
    with pytest.raises(DyetraceError, match="unknown argument"):
        _admit({TENANT: "acme", name: "x"})


def test_without_an_account_the_usual_one_serves_or_none() -> None:
    assert _admit(None, default_tenant="house") == Admitted("house")
    with pytest.raises(DyetraceError, match="names no account"):
        _admit(None)
    assert _admit({}, on_unmarkable="pass") == Admitted(None, unmarked="no tenant")
    assert _admit(None, spec=spec_of()) == Admitted(None)


@pytest.mark.parametrize(
    ("tenant", "why"), [("nobody", "not known"), (7, "must be a string"), ("a b", "white space"), ("", "characters")]
)
def test_an_account_that_cannot_be_is_refused(tenant: Any, why: str) -> None:
    with pytest.raises(DyetraceError, match=why):
        _admit({TENANT: tenant}, tenants=["acme"])


def test_a_watermark_without_accounts_takes_none() -> None:
    with pytest.raises(DyetraceError, match="no accounts"):
        _admit({TENANT: "acme"}, spec=spec_of())


def test_opting_out_is_the_operators_to_allow() -> None:
    assert _admit({TENANT: "acme", MARK: "off"}, allow_off=True) == Admitted("acme", unmarked="opted out")
    assert _admit({TENANT: "acme", MARK: "on"}) == Admitted("acme")
    with pytest.raises(DyetraceError, match="marks all its output"):
        _admit({TENANT: "acme", MARK: "off"})
    for value in ("no", False, 0, None):
        with pytest.raises(DyetraceError, match="'on' or 'off'"):
            _admit({TENANT: "acme", MARK: value}, allow_off=True)


def test_opting_out_does_not_hide_a_wrong_account() -> None:
    with pytest.raises(DyetraceError, match="not known"):
        _admit({TENANT: "nobody", MARK: "off"}, tenants=["acme"], allow_off=True)


@pytest.mark.parametrize("decoding", [Decoding(greedy=True), Decoding(beams=True)])
def test_a_chooser_cannot_mark_greedy_text(decoding: Decoding) -> None:
    with pytest.raises(DyetraceError, match="nothing to choose"):
        _admit({TENANT: "acme"}, decoding)
    passed = _admit({TENANT: "acme"}, decoding, on_unmarkable="pass")
    assert passed.unmarked == ("beam search" if decoding.beams else "greedy")
    assert _admit({TENANT: "acme"}, decoding, spec=GREEN) == Admitted("acme")


def test_more_samples_than_sub_keys_are_refused_whatever_the_policy() -> None:
    assert _admit({TENANT: "acme"}, Decoding(samples=4)) == Admitted("acme")
    for policy in ("error", "pass"):
        with pytest.raises(DyetraceError, match="ask for at most 4"):
            _admit({TENANT: "acme"}, Decoding(samples=5), on_unmarkable=policy)
    assert _admit({TENANT: "acme"}, Decoding(samples=5), fresh_share=0.1) == Admitted("acme")
    assert _admit({TENANT: "acme"}, Decoding(samples=5), spec=GREEN) == Admitted("acme")


def test_a_sub_key_is_chosen_where_allowed_and_for_one_sample() -> None:
    assert _admit({TENANT: "acme", SUBKEY: 3}, allow_subkey=True) == Admitted("acme", 3)
    assert _admit({TENANT: "acme", SUBKEY: 2.0}, allow_subkey=True) == Admitted("acme", 2)
    with pytest.raises(DyetraceError, match="chooses sub-keys itself"):
        _admit({TENANT: "acme", SUBKEY: 3})
    with pytest.raises(DyetraceError, match="same text several times"):
        _admit({TENANT: "acme", SUBKEY: 3}, Decoding(samples=2), allow_subkey=True)


@pytest.mark.parametrize("value", [4, -1, 1.5, "1", True, float("nan"), float("inf"), [1]])
def test_a_sub_key_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(DyetraceError, match=SUBKEY):
        _admit({TENANT: "acme", SUBKEY: value}, allow_subkey=True)


@given(
    st.dictionaries(
        st.sampled_from([TENANT, MARK, SUBKEY, "dyetrace_x", "other"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.lists(st.integers(), max_size=2),
    )
)
def test_whatever_a_client_sends_it_is_admitted_or_refused_in_one_line(arguments: dict[str, Any]) -> None:
    try:
        found = _admit(arguments, tenants=["acme"], allow_off=True, allow_subkey=True)
    except DyetraceError as error:
        assert "\n" not in str(error)
    else:
        assert found.tenant == "acme"
