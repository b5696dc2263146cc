"""Marked text is found wherever in a record a model's words may stand, and what is not read is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.corpus.scan import ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.readers import ReadOptions
from detect.records.reading import read_record
from detect.records.scan import ScanRecord
from tests.detect.corpus.marked import SECRET, VOCABULARY, InlineEngine, documents, spec
from tests.detect.readers.shapes import SHAPES, says, user
from watermark.errors import DyetraceError
from watermark.keys import write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec


class World:
    """A tokenizer of words, a key, and marked and unmarked texts of such words."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(folder / "tokenizer.json"))
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        self.folder = folder
        self.spec: WatermarkSpec = spec(
            vocabulary_size=vocabulary_size(tokenizer), tokenizer=tokenizer_fingerprint(tokenizer)
        )
        write_spec(folder / "spec.json", self.spec)
        write_key_file(folder / "owner.key", SECRET)
        self.marked = [self._text(row) for row in documents(4, 120, 1, spec())]
        self.clean = [self._text(row) for row in documents(4, 120, 2)]

    @staticmethod
    def _text(row: Any) -> str:
        return " ".join(f"w{token}" for token in row.tolist())

    def scan(self, path: Path, output: Path, **read: Any) -> ScanRecord:
        job = ScanJob(
            paths=[str(path)],
            specs=[self.spec],
            key=f"file:{self.folder / 'owner.key'}",
            settings=ScanSettings(decoys=3, read=ReadOptions(**read)),
            tokenizer=str(self.folder / "tokenizer.json"),
            null_corpus=(),
        )
        return scan(job, output, InlineEngine())

    def command(self, *more: str | Path) -> Result:
        words = [
            "scan", *more, "--spec", self.folder / "spec.json", "--key", f"file:{self.folder / 'owner.key'}",
            "--tokenizer", self.folder / "tokenizer.json", "--null-corpus", "none", "--decoys", "3", "--no-pdf",
            "--workers", "1",
        ]  # fmt: skip
        return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["reasoning_content", "tool_calls as objects", "role 'chatgpt'", "Gemini batch"])
def test_marked_text_is_found_there(world: World, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.jsonl", [SHAPES[name](m, c) for m, c in zip(world.marked, world.clean, strict=True)])
    found = world.scan(path, tmp_path / "out")
    assert found.found and found.log10_pvalue is not None and found.log10_pvalue < -30


def test_unmarked_text_in_the_same_places_is_not_found(world: World, tmp_path: Path) -> None:
    records = [SHAPES["reasoning_content"](c, c) for c in world.clean]
    assert not world.scan(write(tmp_path / "a.jsonl", records), tmp_path / "out").found


def test_what_is_left_out_is_not_found_and_counted(world: World, tmp_path: Path) -> None:
    records = [
        {"messages": [user(c), says(c, reasoning_content=m, tool_calls=[{"function": {"arguments": m}}])]}
        for m, c in zip(world.marked, world.clean, strict=True)
    ]
    path = write(tmp_path / "a.jsonl", records)
    assert world.scan(path, tmp_path / "tools", leave_out=("reasoning",)).found
    assert world.scan(path, tmp_path / "reasoning", leave_out=("tools",)).found
    neither = world.scan(path, tmp_path / "neither", leave_out=("reasoning", "tools"))
    assert not neither.found
    counts = {(one.role, one.part): (one.read, one.count) for one in neither.inputs[0].turns}
    assert counts == {
        ("user", "text"): (False, 4),
        ("assistant", "text"): (True, 4),
        ("assistant", "reasoning"): (False, 4),
        ("assistant", "tools"): (False, 4),
    }


def test_contexts_never_cross_from_reasoning_to_the_answer(world: World, tmp_path: Path) -> None:
    chat = [{"messages": [says("w1 w2 w3", reasoning="w4 w5 w6", thinking="w7 w8")]}]
    found = world.scan(write(tmp_path / "a.jsonl", chat), tmp_path / "out")
    assert (found.tokens, found.tuples) == (8, 2)  # three of three, none of two; context width 2


def test_chats_of_which_no_turn_is_read_are_refused_with_their_roles(world: World, tmp_path: Path) -> None:
    records = [
        {"messages": [user(c), {"role": "Zorblax\x1b", "content": m}]}
        for m, c in zip(world.marked, world.clean, strict=True)
    ]
    path = write(tmp_path / "a.jsonl", records)
    with pytest.raises(
        DyetraceError, match=r"a.jsonl: no turn .*'Zorblax\\x1b' \(text: 4\), 'user' \(text: 4\): .*--role"
    ) as error:
        world.scan(path, tmp_path / "out")
    assert str(error.value).isprintable()
    assert world.scan(path, tmp_path / "named", roles=("zorblax\x1b ",)).found
    good = write(tmp_path / "b.jsonl", [{"messages": [says(world.clean[0])]}])
    (tmp_path / "both").mkdir()
    for one in (path, good):
        one.rename(tmp_path / "both" / one.name)
    skipping = world.scan(tmp_path / "both", tmp_path / "skip", skip_errors=True)
    assert [(one.role, one.read) for one in skipping.inputs[0].turns] == [("Zorblax\x1b", False), ("user", False)]


def test_chats_of_questions_alone_beside_an_answer_are_no_reason_to_refuse(world: World, tmp_path: Path) -> None:
    records = [{"messages": [user(c)], "chosen": says(m)} for m, c in zip(world.marked, world.clean, strict=True)]
    assert world.scan(write(tmp_path / "a.jsonl", records), tmp_path / "s").found
    records = [{"messages": [{"role": "Zorblax", "content": m}], "chosen": says("w1")} for m in world.marked]
    with pytest.raises(DyetraceError, match=r"no turn .*Zorblax"):
        world.scan(write(tmp_path / "b.jsonl", records), tmp_path / "t")


def test_a_report_on_files_of_every_shape_holds(world: World, tmp_path: Path) -> None:
    (folder := tmp_path / "files").mkdir()
    for number, shape in enumerate(SHAPES.values()):
        write(folder / f"{number:03}.jsonl", [shape(world.marked[number % 4], world.clean[number % 4])])
    assert world.scan(folder, tmp_path / "out").found
    verified = CliRunner().invoke(
        main, ["report", "verify", str(tmp_path / "out" / "report.json"), "--inputs", str(folder)]
    )
    assert verified.exit_code == 0, verified.output


def test_fields_of_one_file_stay_apart_and_are_inputs_of_their_own(world: World, tmp_path: Path) -> None:
    records = [{"id": i, "a": m, "b": c} for i, (m, c) in enumerate(zip(world.marked, world.clean, strict=True))]
    path = write(tmp_path / "a.jsonl", [*records, {"id": 4, "a": None, "b": "w1 w2 w3 w4"}, {"id": 5, "b": 7}, []])
    found = world.scan(path, tmp_path / "out", fields=("b", "a"), skip_errors=True)
    assert [(source.column, source.documents, source.skipped) for source in found.inputs] == [("b", 5, 2), ("a", 6, 1)]
    assert {hit.input for hit in found.hits} == {1} and len(found.hits) == 4
    assert {source.sha256 for source in found.inputs} == {found.inputs[0].sha256}
    assert [file.name for file in found.files_read] == [str(path)]
    rows = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [(row["column"], row["record"]) for row in rows] == [("b", 6), ("b", 7), ("a", 7)]
    page = CliRunner().invoke(main, ["report", "render", str(tmp_path / "out" / "report.json"), "--format", "markdown",
                                     "-o", str(tmp_path / "drawn")])  # fmt: skip
    assert page.exit_code == 0, page.output
    assert "a.jsonl:1 (a)" in (tmp_path / "drawn" / "report.md").read_text().replace("\\", "")
    verified = CliRunner().invoke(
        main, ["report", "verify", str(tmp_path / "out" / "report.json"), "--inputs", str(tmp_path)]
    )
    assert verified.exit_code == 0, verified.output


def test_choice_sizes_and_turns_are_said_before_the_scan_in_the_dry_run_and_in_every_form(
    world: World, tmp_path: Path
) -> None:
    records = [
        {"prompt": c, "response": m, "messages": [user(c), says(c, reasoning=m), {"role": "tool", "content": c}]}
        for m, c in zip(world.marked, world.clean, strict=True)
    ]
    path = write(tmp_path / "a.jsonl", records)
    size = sum(map(len, world.marked))
    fields = f"a.jsonl: reads 'response' ({size:,} characters in 4 records), 'messages' (chats or lists: "
    dry = world.command(path, "-o", tmp_path / "out", "--dry-run")
    assert dry.exit_code == 0, dry.output
    done = world.command(path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    turns = f"turns read: 'assistant' reasoning 4 times, {size:,} characters, 'assistant' text 4 times"
    said = {"dry run": dry.stdout, "before": done.stderr, "after": done.stdout}
    for where, told in said.items():
        told = "".join(told.split())  # lines may break within a long path
        assert fields.replace(" ", "") in told, where
        assert ";not'prompt'(" in told, where
        if where != "before":
            assert turns.replace(" ", "") in told and "turnsnotread:'tool'text4times" in told, where
        assert told.isascii()
    record = read_record(ScanRecord, tmp_path / "out" / "report.json")
    assert [(seen.name, seen.read) for seen in record.inputs[0].columns] == [
        ("prompt", False), ("response", True), ("messages", True)
    ]  # fmt: skip
    assert record.arguments["leave_out"] == []
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Turns of chats" in html and "Fields of the inputs" in html


def test_a_report_without_quotes_tells_no_names_of_fields_or_roles(world: World, tmp_path: Path) -> None:
    records = [
        {"secretfield": "w1", "messages": [says(m, hiddenfield=c), {"role": "Annabel", "content": c}]}
        for m, c in zip(world.marked, world.clean, strict=True)
    ]
    path = write(tmp_path / "a.jsonl", records)
    done = world.command(path, "-o", tmp_path / "out", "--no-quotes")
    assert done.exit_code == 0, done.output
    for file in (tmp_path / "out").iterdir():
        data = file.read_bytes()
        assert not [name for name in (b"secretfield", b"hiddenfield", b"Annabel") if name in data], file.name
    [source] = read_record(ScanRecord, tmp_path / "out" / "report.json").inputs
    assert [(one.role, one.part, one.read) for one in source.turns] == [
        ("assistant", "other", False), ("assistant", "text", True), ("role 1", "text", False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "says_why"),
    [
        (["--field", "reply"], "'reply'"),
        (["--field", "response", "--field", "replies"], "'replies'"),
        (["--leave-out", "thinking"], "--leave-out"),
    ],
)
def test_fields_and_parts_that_there_are_not_are_one_line(
    world: World, tmp_path: Path, more: list[str], says_why: str
) -> None:
    path = write(tmp_path / "a.jsonl", [{"response": world.clean[0]}])
    done = world.command(path, "-o", tmp_path / "out", *more)
    assert done.exit_code == 2 and says_why in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "report.json").exists()
