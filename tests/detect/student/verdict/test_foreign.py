"""Students of text under foreign marks: exact tails where the format is exact, ranks among decoys where it isn't."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.records.reading import read_record
from detect.records.trace import TraceRecord
from detect.report.verification import verify_report
from detect.student.verdict.conclude import conclude
from detect.student.verdict.evidence import Evidence, TraceSettings
from detect.student.verdict.hypothesis import key_test
from detect.student.verdict.recompute import recompute_trace
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import STEPS, WeightedTuples
from tests.detect.calibration import assert_calibrated
from tests.detect.foreign import fresh_keys, owner
from tests.watermark.formats.test_registry import VOCABULARY, made
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, write_key_file
from watermark.keys.foreign import ForeignKey
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

EXACT, DUAL, BOUNDED, RANKED = (
    "vllm-gumbel",
    "vllm-dual-key-gumbel",
    "transformers-kgw-lefthash",
    "textseal-gumbel",
)
SETTINGS = TraceSettings(decoy_count=20)
CANDIDATES = 6


def evidence(made: WatermarkSpec, key: ForeignKey | None, contexts: int = 400, lean: float = 0.5) -> Evidence:
    """What a student's predictions leave: a little more weight where the teacher's key scored high."""
    rng, scheme = np.random.default_rng(1), made.build_scheme()
    windows = rng.integers(0, VOCABULARY, (contexts, made.context_width), dtype=np.uint32)
    tokens = np.stack([rng.choice(VOCABULARY, CANDIDATES, replace=False) for _ in range(contexts)]).ravel()
    context = np.repeat(np.arange(contexts), CANDIDATES)
    weights = rng.normal(0, 1, len(tokens))
    if key is not None:
        scores = scheme.statistic(scheme.words(key.native, windows[context].astype(np.int64), tokens))  # type: ignore[attr-defined]
        weights += lean * (scores - scores.mean()) / scores.std()
    rounded = np.clip(np.rint(weights * STEPS / 4), -2 * STEPS, 2 * STEPS).astype(np.int64)
    kept = rounded != 0
    tuples = WeightedTuples(
        windows, context[kept], tokens[kept].astype(np.uint32), rounded[kept], np.full(contexts, -1, dtype=np.int64)
    )
    return Evidence(tuples, np.arange(1, contexts + 1))


@pytest.mark.parametrize("name", [EXACT, DUAL])
def test_a_student_of_an_exact_format_has_its_exact_tail(name: str) -> None:
    own, ring, key = owner(name)
    found = conclude(evidence(own, key), own, ring, "p-value", SETTINGS)
    assert found.found and found.log10_pvalue is not None and found.log10_pvalue < -20
    assert found.curve and found.controls.decoy_log10_agreement > -4
    clean = conclude(evidence(own, None), own, ring, "p-value", SETTINGS)
    assert not clean.found and clean.hypotheses[0].log10_pvalue > -4


@pytest.mark.parametrize("name", [BOUNDED, RANKED])
def test_a_student_of_another_format_is_ranked_among_decoys(name: str) -> None:
    own, ring, key = owner(name)
    few = evidence(own, key, contexts=150)
    found = conclude(few, own, ring, "p-value", SETTINGS)
    [hypothesis] = found.hypotheses
    assert hypothesis.log10_pvalue == pytest.approx(-math.log10(2_001))
    assert hypothesis.log10_evalue == pytest.approx(math.log10(2_001) / 2 - math.log10(2))
    assert (hypothesis.total - hypothesis.expected) / hypothesis.sd > 4
    assert not found.found and found.refused is None
    clean = conclude(evidence(own, None, contexts=150), own, ring, "p-value", SETTINGS)
    assert clean.hypotheses[0].log10_pvalue > -3


@pytest.mark.parametrize("name", [EXACT, DUAL])
def test_totals_under_fresh_keys_have_the_law_they_are_given(name: str) -> None:
    own, ring, _ = owner(name)
    test = key_test(own, ring.selector, evidence(own, None, contexts=60).tuples, of_global=True)
    keys = list(fresh_keys(own.build_scheme(), "law", 3_000))  # type: ignore[arg-type]
    totals = test.totals(keys)
    for p in (test.log10_pvalues(totals), test.log10_pvalues_lower(totals)):
        assert_calibrated(10**p)
    assert abs(totals.mean() - test.moments[0]) < 5 * test.moments[1] / math.sqrt(len(keys))
    assert 0.9 < totals.std() / test.moments[1] < 1.1


def test_two_keys_scores_are_the_whole_numbers_of_their_law() -> None:
    scheme: Any = made(DUAL)
    score: Any = TraceScore.of(scheme)
    words = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    found = score(words)
    chance = dict(zip(score.law.values, score.law.probabilities, strict=True))
    assert set(found.tolist()) <= chance.keys()
    assert abs(found.mean() - score.mean) < 5 * score.sd / math.sqrt(len(words))
    for value in (0, 9, 10, 90):
        seen, expected = np.mean(found == value), chance[value]
        assert abs(seen - expected) < 5 * math.sqrt(expected / len(words))


@pytest.mark.parametrize("name", [BOUNDED, RANKED])
def test_no_evalue_is_made_of_ranks_that_were_looked_at(name: str) -> None:
    own, ring, key = owner(name)
    with pytest.raises(DyetraceError, match="ranked among decoys once, at the end"):
        conclude(evidence(own, key, contexts=20), own, ring, "e-value", SETTINGS)


# --- the whole way ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suspect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model with a tokenizer of its own, and text to read it on."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from detect.text.natural_text import natural_documents
    from tests.detect.student.test_open_weights import _tokenizer

    folder = tmp_path_factory.mktemp("suspect")
    prose = [text[:2_000] for _, text in natural_documents("prose", 12)]
    tokenizer = _tokenizer(prose)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "prose.txt").write_text("\n".join(prose))
    return folder


@pytest.mark.parametrize("name", [EXACT, RANKED])
def test_weights_are_traced_and_the_report_holds(name: str, suspect: Path, tmp_path: Path) -> None:
    from watermark.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(suspect / "model")
    own, _, key = owner(name)
    own = WatermarkSpec(
        scheme=name,
        parameters=own.parameters,
        context_width=own.context_width,
        subkeys=1,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
    )
    write_spec(tmp_path / "spec.json", own)
    write_key_file(tmp_path / "foreign.key", key)
    arguments = [
        "trace", "weights", str(suspect / "model"), "--read", str(suspect / "prose.txt"), "--spec",
        str(tmp_path / "spec.json"), "--key", f"file:{tmp_path / 'foreign.key'}", "--tokenizer",
        str(suspect / "model"), "--readout", "argmax",
        "--contexts", "300", "--decoys", "20", "-o", str(tmp_path / "evidence"),
    ]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    report = tmp_path / "evidence" / "report.json"
    record = read_record(TraceRecord, report)
    assert record.refused is None
    assert not record.found and record.log10_pvalue is not None and record.log10_pvalue > -4
    assert (record.calibration is None) == (name == EXACT)
    assert recompute_trace(record, KeyRing.from_foreign(key), tmp_path / "evidence") == []
    verified = verify_report(report)
    assert verified.holds, verified.failed
