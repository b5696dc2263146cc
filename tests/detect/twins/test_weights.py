"""A suspect whose weights are at hand reads both twins of every pair: once, whatever stops it, and after the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.records.twins import TwinRecord
from detect.twins.evidence import EVIDENCE_FILE, read_evidence
from detect.twins.measures.weights import Reader
from detect.twins.plan import PLAN_FILE
from detect.twins.preparing import TwinsJob
from detect.twins.readings import WORK
from detect.twins.weights import trace_twins_weights
from tests.detect.twins.made import KEY, ledger_of, twins
from watermark.errors import DyetraceError
from watermark.twins.pair import Pair

COUNT = 50


@pytest.fixture(scope="session")
def folder(tiny_model: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as people save theirs."""
    return saved(tiny_model, tmp_path_factory.mktemp("suspect"))


def saved(model: tuple[Any, Any], folder: Path) -> Path:
    network, tokenizer = model
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def preferred(tiny_model: tuple[Any, Any]) -> list[Pair]:
    """Pairs whose served twin the model finds likelier, token by token."""
    reader = Reader(*tiny_model, "suspect")
    plain = [twins(number, f"It is {number} owls.", f"There were {number} ships here.") for number in range(COUNT)]
    found = []
    for number, (pair, read) in enumerate(zip(plain, reader.read(plain), strict=True)):
        assert read is not None
        likelier = pair.sides[0] if read.difference[0] > 0 else pair.sides[1]
        other = pair.sides[1] if likelier is pair.sides[0] else pair.sides[0]
        ends = (likelier.text, other.text) if pair.served == 0 else (other.text, likelier.text)
        found.append(twins(number, *ends))
    return found


def run(suspect: Path, ledger: Path, output: Path, **more: Any) -> TwinRecord:
    job: dict[str, Any] = {"dtype": "float32", "alpha": 1e-3, **more}
    progress = job.pop("progress", None)
    return trace_twins_weights(
        TwinsJob(suspect=str(suspect), ledger=ledger, secret=KEY, **job), output, progress=progress
    )


def test_a_suspect_that_finds_the_served_twins_likelier_is_found(
    folder: Path, preferred: list[Pair], tmp_path: Path
) -> None:
    found = run(folder, ledger_of(tmp_path, preferred), tmp_path / "out")
    assert found.found and found.log10_evalue > 6
    assert (found.mode, found.ask, found.queries) == ("weights", "logprobs", None)
    assert found.measures[0].wins == COUNT == found.pairs.asked
    assert found.reference is None and found.suspect.sha256
    assert all(shown.suspect is None for shown in found.shown)


def test_the_same_pairs_with_other_coins_show_nothing(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    """The numbers are those of the pairs; with coins tossed anew they speak for neither."""
    run(folder, ledger_of(tmp_path, preferred), tmp_path / "out")
    differences = read_evidence(tmp_path / "out" / EVIDENCE_FILE).differences
    other = [twins(n, *(answer.text for answer in pair.answers[::-1])) for n, pair in enumerate(preferred[:30])]
    other += preferred[30:]
    (tmp_path / "again").mkdir()
    found = run(folder, ledger_of(tmp_path / "again", other), tmp_path / "again" / "out")
    again = read_evidence(tmp_path / "again" / "out" / EVIDENCE_FILE).differences
    assert np.array_equal(np.abs(again[:, 0]), np.abs(differences[:, 0]))
    assert not found.found


def test_what_was_read_is_not_read_again(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, preferred)
    first = run(folder, ledger, tmp_path / "out")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / WORK).iterdir()}
    assert len(kept) == 2
    again = run(folder, ledger, tmp_path / "out")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / WORK).iterdir()} == kept
    assert again.log10_evalue == first.log10_evalue and again.plan == first.plan


def test_a_damaged_reading_is_read_anew(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, preferred)
    first = run(folder, ledger, tmp_path / "out")
    for path in (tmp_path / "out" / WORK).iterdir():
        if path.name != "DYETRACE":
            path.write_bytes(path.read_bytes()[:-9])
    assert run(folder, ledger, tmp_path / "out").log10_evalue == first.log10_evalue


def test_the_plan_is_there_before_the_suspect_reads(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    seen = []

    def look(what: str, done: int, total: int) -> None:
        seen.append((tmp_path / "out" / PLAN_FILE).exists())

    run(folder, ledger_of(tmp_path, preferred), tmp_path / "out", progress=look)
    assert seen and all(seen)


def test_a_suspect_is_not_compared_with_itself(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="the same model"):
        run(folder, ledger_of(tmp_path, preferred), tmp_path / "out", reference=folder)


def test_a_reference_is_taken_away(
    folder: Path, tiny_model: tuple[Any, Any], preferred: list[Pair], tmp_path: Path
) -> None:
    import copy

    import torch

    network, tokenizer = tiny_model
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.lm_head.weight.mul_(0.5)
    base = saved((other, tokenizer), tmp_path / "base")
    found = run(folder, ledger_of(tmp_path, preferred[:9]), tmp_path / "out", reference=base)
    assert found.reference is not None and found.reference.name == str(base)
    evidence = read_evidence(tmp_path / "out" / EVIDENCE_FILE)
    assert evidence.columns[0] == "surprise taken away" and evidence.differences.shape == (9, 5)


def test_another_model_in_the_suspects_folder_is_another_test(
    tiny_model: tuple[Any, Any], preferred: list[Pair], tmp_path: Path
) -> None:
    suspect, ledger = saved(tiny_model, tmp_path / "suspect"), ledger_of(tmp_path, preferred[:5])
    run(suspect, ledger, tmp_path / "out")
    weights = suspect / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(DyetraceError, match="another model than when the plan was made"):
        run(suspect, ledger, tmp_path / "out")


def test_an_owners_opinion_is_a_covariate(folder: Path, preferred: list[Pair], tmp_path: Path) -> None:
    run(folder, ledger_of(tmp_path, preferred[:5]), tmp_path / "out", owner=folder)
    evidence = read_evidence(tmp_path / "out" / EVIDENCE_FILE)
    assert "owner's log-probability" in evidence.covariate_names and evidence.covariates.shape == (5, 5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ask": "answers"}, "of a model folder log-probabilities are read"),
        ({"model": "student"}, "leave it out"),
        ({"level": "regenerated"}, "none that is asked for"),
        ({"controls": (Path("x"),)}, "need no law test"),
        ({"target_log10": -3.0}, "positive number"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    folder: Path, preferred: list[Pair], tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(DyetraceError, match=said) as caught:
        run(folder, ledger_of(tmp_path, preferred[:2]), tmp_path / "out", **more)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_twins_drawn_later_need_a_law_test(folder: Path, tmp_path: Path) -> None:
    later = [twins(number, "One.", "Other.", level="regenerated", proof=None) for number in range(3)]
    with pytest.raises(DyetraceError, match="need a law test first"):
        run(folder, ledger_of(tmp_path, later), tmp_path / "out")


def test_a_law_test_with_a_veto_comes_before_the_suspect(folder: Path, tmp_path: Path) -> None:
    """Three pairs bound no bias: nobody is asked, and the report says why."""
    later = [
        twins(number, f"One {number}.", f"Other {number}.", level="regenerated", proof=None, engine={"model": "x" * 64})
        for number in range(3)
    ]
    ledger = ledger_of(tmp_path, later)
    found = run(folder, ledger, tmp_path / "out", owner=folder, controls=(folder,))
    assert found.law is not None and found.law.veto is not None and found.refused == found.law.veto
    assert (found.pairs.asked, found.found) == (0, False)
