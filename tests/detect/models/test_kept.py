"""What models have read is kept for its user alone, within bounds, and any of it may go at any time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from detect.models import kept
from detect.models.forward import Predictions, predictions
from detect.models.kept import FOLDER, kept_folder
from detect.models.reading import Positions, ReadingDocument, ReadingText

DAYS = 24 * 3600


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "cache_root", lambda: tmp_path / "cache")
    return tmp_path / "cache" / FOLDER


def entry(folder: Path, name: str, size: int, days_ago: float) -> Path:
    path = folder / f"{name * 16}-{name * 16}-64-2"
    path.mkdir()
    (path / "000000.npz").write_bytes(bytes(size))
    os.utime(path, (time.time() - days_ago * DAYS,) * 2)
    return path


def test_the_folder_is_its_users_alone(cache: Path) -> None:
    assert kept_folder() == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o755)
    assert kept_folder() == cache
    assert cache.stat().st_mode & 0o777 == 0o700


def test_what_was_not_used_for_longest_goes_first_and_nothing_of_the_last_day(cache: Path) -> None:
    kept_folder()
    new, old, older = entry(cache, "a", 300, 0.5), entry(cache, "b", 300, 2), entry(cache, "c", 300, 3)
    kept_folder(most_bytes=700)
    assert new.exists() and old.exists() and not older.exists()
    kept_folder(most_bytes=100)
    assert new.exists() and not old.exists()


def test_nothing_goes_that_is_no_entry_and_what_a_killed_run_left_does(cache: Path) -> None:
    kept_folder()
    own = entry(cache, "a", 10, 0)
    other, file = cache / "mine", cache / "notes.txt"
    other.mkdir()
    file.write_text("x")
    outside = cache.parent / "outside"
    outside.mkdir()
    (cache / f"{'d' * 16}-{'d' * 16}-64-2").symlink_to(outside)
    for folder in (cache, own):
        (folder / ".dyetrace-abcdefgh").write_bytes(b"half")
        os.utime(folder / ".dyetrace-abcdefgh", (time.time() - 2 * DAYS,) * 2)
    fresh = own / ".dyetrace-hgfedcba"
    fresh.write_bytes(b"another process writes this")
    kept_folder(most_bytes=0)
    assert own.exists() and other.exists() and file.exists() and outside.exists() and fresh.exists()
    assert not (cache / ".dyetrace-abcdefgh").exists() and not (own / ".dyetrace-abcdefgh").exists()


def test_where_there_can_be_no_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kept, "cache_root", lambda: tmp_path / "file")
    assert kept_folder() is None
    theirs = tmp_path / FOLDER
    theirs.mkdir()
    (theirs / "theirs.txt").write_text("")
    monkeypatch.setattr(kept, "cache_root", lambda: tmp_path)
    assert kept_folder() is None and os.listdir(theirs) == ["theirs.txt"]


class Counting:
    """A model that counts what it reads."""

    def __init__(self) -> None:
        self.read = 0

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        self.read += len(where)
        ids = np.tile(np.arange(3, dtype=np.int32), (len(where), 1))
        return Predictions(ids, np.full(ids.shape, 0.2, dtype=np.float32))


def test_a_text_is_read_once_whatever_folder_it_is_asked_for_and_again_if_its_entry_is_gone(cache: Path) -> None:
    documents = [ReadingDocument("d", np.arange(9, dtype=np.uint32), 0, 0)]
    text = ReadingText("t", "", documents, True)
    place = np.arange(2, 8)
    where = Positions(np.zeros(6, dtype=np.int64), place, place.astype(np.uint64))
    model = Counting()
    first = predictions(lambda: model, "f" * 64, text, where, kept_folder())
    second = predictions(lambda: model, "f" * 64, text, where, kept_folder())
    assert model.read == 6 and (first.ids == second.ids).all()
    (shard,) = cache.glob("*/000000.npz")
    assert shard.stat().st_mode & 0o777 == 0o600
    shard.write_bytes(b"damaged")
    predictions(lambda: model, "f" * 64, text, where, kept_folder())
    assert model.read == 12
    predictions(lambda: model, "f" * 64, text, where, None)
    assert model.read == 18
    # The same ids with another prompt's length are another text: a model with another tokenizer reads them otherwise.
    told = ReadingText("t", "", [ReadingDocument("d", np.arange(9, dtype=np.uint32), 2, 0)], True)
    predictions(lambda: model, "f" * 64, told, where, kept_folder())
    assert model.read == 24
