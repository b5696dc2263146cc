"""Which account a detection names: paid for over all documents and keys, and none for unmarked text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from detect.cli.main import main
from detect.document.pointing import pointing
from detect.records.detection import Hypothesis, Record
from detect.records.reading import read_record
from tests.detect.calibration import log10_excess
from tests.detect.corpus.marked import SECRET, documents, write_jsonl
from watermark.keys import write_key_file
from watermark.spec import load_spec

ALPHA = 1e-2
ACCOUNTS = ("acme", *(f"innocent-{number}" for number in range(20)))


def family(log10_ps: np.ndarray) -> list[Hypothesis]:
    return [
        Hypothesis(key=f"tenant:{name}", tuples=9, subkeys=[], log10_pvalue=float(p), log10_pvalue_adjusted=0.0)
        for name, p in zip(ACCOUNTS, log10_ps, strict=True)
    ]


def test_no_innocent_is_named_beyond_the_level_while_somebody_is_guilty() -> None:
    """30 documents, half of them acme's: p-values of 20 innocents are uniform, of equal documents the same."""
    draw = np.random.default_rng(1)
    wrong = []
    for _ in range(2_000):
        log10_ps = np.log10(draw.random((30, len(ACCOUNTS))))
        log10_ps[:15, 0] = -20 * draw.random(15)
        log10_ps[20:25] = log10_ps[20]
        named = pointing([family(row) for row in log10_ps], ALPHA)
        wrong.append(any(key != "tenant:acme" for keys in named for key in keys))
    assert log10_excess(np.where(wrong, 0.0, 1.0), ALPHA) > -5, f"{sum(wrong)} of {len(wrong)}"


def test_the_strongest_key_comes_first_and_a_document_without_tests_names_nobody() -> None:
    log10_ps = np.full(len(ACCOUNTS), -0.1)
    log10_ps[[0, 3]] = -9, -12
    assert pointing([family(log10_ps), []], ALPHA) == [["tenant:innocent-2", "tenant:acme"], []]
    assert pointing([], ALPHA) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    made = tmp_path_factory.mktemp("pointing")
    write_key_file(made / "owner.key", SECRET)
    key = f"file:{made / 'owner.key'}"
    assert run("spec", made / "spec.json", "--key", key, "--tenants", "--model", smollm2_dir).exit_code == 0
    (made / "accounts.txt").write_text("\n".join(ACCOUNTS))
    return made


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_names_no_account_for_unmarked_text(
    folder: Path, smollm2_dir: Path, prose: list[str], tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in prose[:40]))
    for limit in ("3", "40"):  # in full, and as a table
        result = run(
            "detect", tmp_path / "x.jsonl", "--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}",
            "--tenants-file", folder / "accounts.txt", "--tokenizer", smollm2_dir, "--decoys", "0", "--limit", limit,
            "--alpha", "0.01", "-o", tmp_path / "out",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert not any(name in result.stdout for name in ACCOUNTS) and "none named" in result.stdout
        record = read_record(Record, tmp_path / "out" / "report.json")
        assert all(document.points_to == [] and not document.found for document in record.documents)
        page = (tmp_path / "out" / "report.html").read_text()
        assert "none named" in page and "Some key is the strongest in any text" in page
        shown = page.split('<h2 id="documents">')[1].split('<h2 id="details">')[0]
        assert not any(name in shown for name in ACCOUNTS)


def test_the_command_names_the_guilty_account(
    folder: Path, smollm2_dir: Path, smollm2_tokenizer: Tokenizer, prose: list[str], tmp_path: Path
) -> None:
    made = load_spec(folder / "spec.json")
    rows = [documents(1, 200, 7, made, "acme")[0], *(np.array(smollm2_tokenizer.encode(t).ids) for t in prose[:9])]
    write_jsonl(tmp_path / "x.jsonl", rows)
    result = run(
        "detect", tmp_path / "x.jsonl", "--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}",
        "--tokenizer", smollm2_dir, "--tenants-file", folder / "accounts.txt", "--decoys", "0", "--alpha", "0.01",
        "--json",
    )  # fmt: skip
    record = json.loads(result.stdout)
    assert record["documents"][0]["found"] and "tenant:acme" in record["documents"][0]["points_to"]
    assert {key for document in record["documents"] for key in document["points_to"]} <= {"global", "tenant:acme"}
    assert not any(document["points_to"] for document in record["documents"][1:])
