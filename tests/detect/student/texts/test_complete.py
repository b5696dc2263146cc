"""Served answers are held against what was recorded when they were served: none may be missing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.student.texts.complete import check_complete, hash_lines
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey
from watermark.ledger import Ledger, answer_contexts
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(KEY, tenants=("acme", "borea"))
SPEC = WatermarkSpec(vocabulary_size=100, tokenizer="t", key_fingerprint=KEY.fingerprint, global_share=0.5)


def answers(path: Path, numbers: list[int]) -> str:
    made = [
        Answer(
            id=str(n),
            prompt=f"p{n}",
            text="",
            prompt_token_ids=[1, 2],
            token_ids=[n, n + 1, n + 2],
            spec_id=SPEC.spec_id,
            tenant=("acme", "borea")[n % 2],
            subkey=0,
        )
        for n in numbers
    ]
    path.write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in made))
    return str(path)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The list that the command prints when answers 0 to 9 are served."""
    served = answers(tmp_path / "all.jsonl", list(range(10)))
    printed = CliRunner().invoke(main, ["ledger", "hashes", served])
    assert printed.exit_code == 0
    path = tmp_path / "served.sha256"
    path.write_text(printed.output)
    return path


def test_all_answers_pass_in_any_order_and_so_do_all_of_one_account(tmp_path: Path, listed: Path) -> None:
    backwards = answers(tmp_path / "a.jsonl", list(range(9, -1, -1)))
    assert "10 hashes" in check_complete(backwards, listed, SPEC, RING, None)
    acme = answers(tmp_path / "b.jsonl", [0, 2, 4, 6, 8])
    assert "5 hashes" in check_complete(acme, listed, SPEC, RING, "acme")


@pytest.mark.parametrize(("given", "words"), [([0, 1, 2], "lacks 7 of the 10"), ([*range(10), 11], "holds 1 answers")])
def test_missing_answers_and_others_are_refused(tmp_path: Path, listed: Path, given: list[int], words: str) -> None:
    with pytest.raises(DyetraceError, match=words):
        check_complete(answers(tmp_path / "a.jsonl", given), listed, SPEC, RING, None)


def test_a_servers_ledger_tells_whether_answers_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "served.ledger"
    with Ledger.create(path, SPEC, RING, megabytes=1) as ledger:
        for n in range(10):
            ledger.add("acme", 0, answer_contexts(np.array([1, 2]), np.array([n, n + 1, n + 2]), SPEC.context_width))
    assert "counted 10 answers" in check_complete(
        answers(tmp_path / "a.jsonl", list(range(10))), path, SPEC, RING, None
    )
    with pytest.raises(DyetraceError, match="8 answers of this spec, fewer than the 10"):
        check_complete(answers(tmp_path / "b.jsonl", list(range(8))), path, SPEC, RING, None)
    padded = answers(tmp_path / "c.jsonl", [*range(9), 0])  # one is left out, another one stands twice
    with pytest.raises(DyetraceError, match="they are not the same answers"):
        check_complete(padded, path, SPEC, RING, None)
    with pytest.raises(DyetraceError, match="of all accounts together"):
        check_complete(answers(tmp_path / "a.jsonl", [0]), path, SPEC, RING, "acme")


def test_a_file_that_is_no_list_is_refused_by_its_line(tmp_path: Path) -> None:
    served = answers(tmp_path / "a.jsonl", [0, 1])
    odd = tmp_path / "odd"
    odd.write_text("\n".join([*hash_lines(Path(served)), "hello"]))
    with pytest.raises(DyetraceError, match="odd, line 3 is no SHA-256"):
        check_complete(served, odd, SPEC, RING, None)
    with pytest.raises(DyetraceError, match="cannot read"):
        check_complete(served, tmp_path / "missing", SPEC, RING, None)
