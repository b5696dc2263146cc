"""Marked text is found in files of every format, and what a scan passes over is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.reading_speed import FORMATS
from detect.corpus.scan import ScanJob, scan
from detect.corpus.settings import ScanSettings
from tests.detect.corpus.marked import InlineEngine
from tests.detect.corpus.test_what_is_read import World
from watermark.errors import DyetraceError

# The writer of web archives leaves a temporary file of each record open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def write_pretty(path: Path, texts: Sequence[str]) -> None:
    path.write_text("\n".join(json.dumps({"response": text}, indent=1) for text in texts))


def write_keyed(path: Path, texts: Sequence[str]) -> None:
    path.write_text(json.dumps({f"id{number}": {"answer": text} for number, text in enumerate(texts)}))


ALL: dict[str, tuple[str, Callable[[Path, Sequence[str]], None]]] = FORMATS | {
    "objects": ("objects.json", write_pretty),
    "objects by key": ("keyed.json", write_keyed),
}


@pytest.mark.parametrize("name", ALL)
def test_marked_text_is_found_in_it_and_unmarked_text_is_not(world: World, tmp_path: Path, name: str) -> None:
    file, write = ALL[name]
    write(tmp_path / file, world.marked)
    found = world.scan(tmp_path / file, tmp_path / "marked")
    assert found.found and found.documents == len(world.marked)
    if name in ("JSON array", "CSV"):
        write(tmp_path / file, world.clean)
        assert not world.scan(tmp_path / file, tmp_path / "clean").found


@pytest.mark.parametrize("name", ["JSON array", "CSV", "WET", "tar of .txt and .json"])
def test_a_limit_reads_the_first_documents_and_a_sample_some(world: World, tmp_path: Path, name: str) -> None:
    file, write = ALL[name]
    write(tmp_path / file, world.marked * 10)
    counts: list[int] = []
    for settings in (ScanSettings(decoys=3, limit=3), ScanSettings(decoys=3, sample=0.5)):
        job = ScanJob(
            paths=[str(tmp_path / file)],
            specs=[world.spec],
            key=f"file:{world.folder / 'owner.key'}",
            settings=settings,
            tokenizer=str(world.folder / "tokenizer.json"),
            null_corpus=(),
        )
        counts.append(scan(job, tmp_path / f"out{len(counts)}", InlineEngine()).documents)
    assert counts[0] == 3
    assert 5 < counts[1] < 35


def test_a_folder_of_all_formats_is_one_corpus_and_any_file_that_is_passed_over_is_named(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    clean = [f"{text} w{number}" for number, text in enumerate(world.clean * len(ALL))]
    for number, (file, write) in enumerate(ALL.values()):
        texts = clean[4 * number : 4 * number + 4]
        write(folder / file, world.marked if file == "texts.wet.gz" else texts)
    found = world.scan(folder, tmp_path / "whole")
    assert found.found and found.documents == 4 * len(ALL) and len(found.inputs) == len(ALL)

    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    (folder / "more.zip").write_bytes(b"PK\3\4\0")
    with pytest.raises(
        DyetraceError,
        match=r"more.zip is a zip archive or an office document; unpack it first \(2 of 18 .* picture.png\); ",
    ):
        world.scan(folder, tmp_path / "stopped")
    result = world.command(folder, "--on-error", "skip", "-o", tmp_path / "skipped")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "more.zip" in said and "picture.png" in said
    listed = (tmp_path / "skipped" / "skipped.jsonl").read_text()
    assert "more.zip" in listed and "picture.png" in listed
