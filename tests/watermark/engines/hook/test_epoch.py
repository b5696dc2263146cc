"""Rotation of keys while a server runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.watermark.engines.operator import KEY, settings_in, spec_of
from watermark.engines.hook.epoch import Epoch, Epochs
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.spec import write_spec


def _changed(path: Path, write: Any) -> None:
    """Change a file so that its stamp differs even within one tick of the file system's clock."""
    before = path.stat().st_mtime_ns
    write(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def _replaced(path: Path) -> None:
    """Put a spec where there is something else: what is no spec is never overwritten by one, so it goes first."""
    path.unlink()
    write_spec(path, spec_of(epoch=2))


def test_a_new_spec_comes_into_force_without_a_restart(tmp_path: Path) -> None:
    epochs = Epochs(settings_in(tmp_path, spec_of(), reload_seconds=0.0))
    first = epochs.current()
    _changed(tmp_path / "spec.json", lambda path: write_spec(path, spec_of(epoch=1)))
    second = epochs.current()
    assert (first.spec.epoch, second.spec.epoch) == (0, 1)
    assert (first.key_words(None, 0).keys != second.key_words(None, 0).keys).any()
    assert epochs.current() is second


@pytest.mark.parametrize(
    "broken",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text(""),
        lambda path: write_spec(path, spec_of(epoch=1, key_fingerprint=SecretKey(bytes(32)).fingerprint)),
    ],
)
def test_a_new_spec_that_cannot_be_used_leaves_the_old_one_in_force(tmp_path: Path, broken: Any) -> None:
    epochs = Epochs(settings_in(tmp_path, spec_of(), reload_seconds=0.0))
    first = epochs.current()
    _changed(tmp_path / "spec.json", broken)
    assert epochs.current() is first
    assert epochs.trouble is not None
    assert "epoch 0 goes on" in epochs.trouble
    _changed(tmp_path / "spec.json", _replaced)
    assert epochs.current().spec.epoch == 2
    assert epochs.trouble is None


def test_a_spec_file_that_vanished_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    epochs = Epochs(settings_in(tmp_path, spec_of(), reload_seconds=0.0))
    first = epochs.current()
    (tmp_path / "spec.json").unlink()
    assert epochs.current() is first
    assert epochs.trouble is not None


def test_the_file_is_not_looked_at_before_its_time(tmp_path: Path) -> None:
    epochs = Epochs(settings_in(tmp_path, spec_of(), reload_seconds=3600.0))
    first = epochs.current()
    _changed(tmp_path / "spec.json", lambda path: write_spec(path, spec_of(epoch=1)))
    assert epochs.current() is first


def test_a_key_that_is_not_the_specs_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError):
        Epochs(settings_in(tmp_path, spec_of(key_fingerprint=SecretKey(bytes(32)).fingerprint)))


def test_accounts_and_sub_keys_have_keys_of_their_own() -> None:
    epoch = Epoch(spec_of(global_share=0.5), KEY)
    words = [epoch.key_words(tenant, index).keys[0].tolist() for tenant in ("a", "b") for index in range(4)]
    assert len({tuple(each) for each in words}) == 8
    assert epoch.key_words("a", 1) is epoch.key_words("a", 1)


def test_the_moments_are_those_of_the_law() -> None:
    mean, sd = Epoch(spec_of(), KEY).moments
    assert np.isclose(mean * 2.0**-24, 1.0, rtol=0.02)
    assert np.isclose(sd * 2.0**-24, 1.0, rtol=0.02)


def test_an_epoch_shows_no_key(tmp_path: Path) -> None:
    epochs = Epochs(settings_in(tmp_path, spec_of()))
    shown = repr(epochs.current()) + repr(epochs.current().ring)
    assert KEY.reveal_hex() not in shown
