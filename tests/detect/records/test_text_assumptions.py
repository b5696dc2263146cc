"""Reports of detect and scan end with what their verdict assumes; older reports, without it, still read and hold."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from detect.cli.main import main
from detect.corpus.recompute import recompute_scan
from detect.records.detection import Record
from detect.records.reading import read_record
from detect.records.scan import ScanRecord
from detect.report.detection.story import story
from detect.report.paper.page import page as draw
from detect.report.paper.terminal import print_story
from detect.report.scan.story import story as scan_story
from detect.report.verification import verify_report
from tests.detect.corpus.marked import SECRET, InlineEngine, documents, spec, write_jsonl
from watermark.keys import SecretKey, write_key_file
from watermark.spec import write_spec

TITLE = "What this verdict assumes"


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path, smollm2_tokenizer: Any) -> Path:
    """Keys, specs, commitments, token ids and a small model that knows nothing."""
    import torch

    made = tmp_path_factory.mktemp("assumptions")
    write_key_file(made / "owner.key", SECRET)
    write_spec(made / "ids.json", spec())
    write_jsonl(made / "ids.jsonl", [*documents(10, 160, 1), *documents(5, 160, 2, spec())])
    key = f"file:{made / 'owner.key'}"
    assert run("spec", made / "text.json", "--key", key, "--tenants", "--model", smollm2_dir).exit_code == 0
    for name in ("ids", "text"):
        committed = run("commit", "--spec", made / f"{name}.json", "--key", key, "-o", made / f"{name}-commitment.json")
        assert committed.exit_code == 0, committed.output
    torch.manual_seed(0)
    size = smollm2_tokenizer.get_vocab_size()
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(made / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (made / "model" / name).write_bytes((smollm2_dir / name).read_bytes())
    return made


def scan(folder: Path, output: Path, *more: object) -> Result:
    return run(
        "scan", folder / "ids.jsonl", "--spec", folder / "ids.json", "--key", f"file:{folder / 'owner.key'}",
        "--workers", "1", "--decoys", "20", "-o", output, *more,
    )  # fmt: skip


def detect(folder: Path, *more: object, stdin: str) -> Result:
    return run(
        "detect", "-", "--spec", folder / "text.json", "--key", f"file:{folder / 'owner.key'}",
        "--tokenizer", folder / "model", "--decoys", "20", *more, stdin=stdin,
    )  # fmt: skip


TEXT = "Rivers carry what is put into them a long way down, and dye shows where the water went. " * 3


def test_every_form_of_a_scans_report_ends_with_what_it_assumes(folder: Path, tmp_path: Path) -> None:
    result = scan(folder, tmp_path)
    assert result.exit_code == 0, result.output
    record = read_record(ScanRecord, tmp_path / "report.json")
    end = result.stdout.split(TITLE)[1]
    page = (tmp_path / "report.html").read_text().split(f"{TITLE}</h2>")[1]
    for one in record.assumptions:
        assert one.says.isascii() and one.how.isascii() and one.says.endswith(".") and one.how.endswith(".")
        assert one.says[:40] in page.replace("&#39;", "'")
        assert f"({one.status}: " in " ".join(end.split())
    assert "15 documents; nothing was left out after scoring" in " ".join(end.split())
    assert verify_report(tmp_path / "report.json").holds


def test_a_detections_report_ends_with_what_it_assumes(folder: Path, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text in (TEXT, "Other words than these.", TEXT))
    result = detect(folder, "--format", "jsonl", "-o", tmp_path, stdin=lines)
    assert result.exit_code == 0, result.output
    record = read_record(Record, tmp_path / "report.json")
    end = " ".join(result.stdout.split(TITLE)[1].split())
    assert "1 file with 3 documents; nothing was left out" in end and "1 has the same tokens as an earlier one" in end
    assert f"{TITLE}</h2>" in (tmp_path / "report.html").read_text()
    assert len(record.assumptions) == 7 and not any("model" in one.says for one in record.assumptions)


def test_the_model_of_an_aware_test_is_assumed_not_to_have_learnt_from_marked_text(folder: Path) -> None:
    result = detect(folder, "--aware", "--model", folder / "model", "--json", stdin=TEXT)
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout)["assumptions"][-1]
    assert "never learnt from text that is marked with this key" in last["says"] and not last["checked"]


@pytest.mark.parametrize("command", ["detect", "scan"])
def test_a_commitment_is_opened_where_its_opening_is_at_hand(folder: Path, tmp_path: Path, command: str) -> None:
    name = "ids-commitment.json" if command == "scan" else "text-commitment.json"

    def fixed(commitment: Path) -> dict[str, Any]:
        more = ["--commitment", commitment]
        result = scan(folder, tmp_path / "out", *more) if command == "scan" else detect(folder, *more, "-o", tmp_path / "out", stdin=TEXT)  # fmt: skip # noqa: E501
        assert result.exit_code == 0, result.output
        return next(
            one for one in json.loads((tmp_path / "out" / "report.json").read_text())["assumptions"]
            if one["says"].startswith("The key was fixed")
        )  # fmt: skip

    opened = fixed(folder / name)
    assert "The commitment was opened" in opened["how"]
    # The hash doesn't cover the date, so that an edited one is opened as well: when the key was fixed is not checked.
    assert not opened["checked"] and "nothing covers and anybody can edit" in opened["how"]
    (tmp_path / name).write_bytes((folder / name).read_bytes())
    alone = fixed(tmp_path / name)
    assert not alone["checked"] and "was not opened here" in alone["how"]


def test_an_opening_that_does_not_fit_is_one_line(folder: Path, tmp_path: Path) -> None:
    commitment = json.loads((folder / "ids-commitment.json").read_text())
    opening = json.loads((folder / "ids-commitment.json.opening").read_text())
    (tmp_path / "c.json").write_text(json.dumps(commitment))
    (tmp_path / "c.json.opening").write_text(json.dumps(opening | {"salt": "00" * 32}))
    result = scan(folder, tmp_path / "out", "--commitment", tmp_path / "c.json")
    assert result.exit_code == 3 and "does not fit the commitment" in result.stderr
    (tmp_path / "c.json").write_text(json.dumps(commitment | {"key_fingerprint": SecretKey(bytes(32)).fingerprint}))
    (tmp_path / "c.json.opening").unlink()
    result = scan(folder, tmp_path / "out", "--commitment", tmp_path / "c.json")
    assert result.exit_code == 2 and "commitment is of key" in result.stderr


def test_an_older_scan_still_reads_verifies_renders_and_recomputes(folder: Path, tmp_path: Path) -> None:
    assert scan(folder, tmp_path, "--no-pdf").exit_code == 0
    path = tmp_path / "report.json"
    fields = json.loads(path.read_text())
    del fields["assumptions"], fields["pairs_paid"], fields["controls"]["null_key_log10_pvalue"], fields["made"]
    older = msgspec.convert(fields, type=type(read_record(ScanRecord, path)))
    out = StringIO()
    print_story(scan_story(older), Console(file=out))
    assert "mark was found" in out.getvalue() and TITLE not in out.getvalue()
    page = draw(scan_story(older))
    assert TITLE not in page and "not over documents" in page
    assert recompute_scan(older, f"file:{folder / 'owner.key'}", None, Path("/"), None, InlineEngine()) == []
    from detect.records.reading import write_record

    write_record(path, older)
    assert verify_report(path).holds


def test_an_older_detection_still_reads_and_renders(folder: Path, tmp_path: Path) -> None:
    assert detect(folder, "-o", tmp_path, "--tenant", "acme", stdin=TEXT).exit_code == 0
    fields = json.loads((tmp_path / "report.json").read_text())
    del fields["assumptions"]
    for document in fields["documents"]:
        del document["points_to"]
    (tmp_path / "report.json").write_text(json.dumps(fields))
    older = read_record(Record, tmp_path / "report.json")
    out = StringIO()
    print_story(story(older), Console(file=out))
    assert "no mark found" in out.getvalue() and TITLE not in out.getvalue()
    assert TITLE not in draw(story(older))
