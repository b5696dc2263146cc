"""A trace is computed anew from its evidence: the same numbers, or a line that says what differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detect.records.report import versions
from detect.records.scan import FileHash
from detect.records.trace import ModelSeen, TraceRecord
from detect.student.verdict.conclude import conclude
from detect.student.verdict.evidence import EVIDENCE_FILE, Evidence, TraceSettings, encode_evidence
from detect.student.verdict.recompute import recompute_trace
from detect.student.verdict.share import not_identified
from detect.student.verdict.weights import WeightedTuples
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.spec import WatermarkSpec

KEY = SecretKey(b"a key that everybody knows......")
SPEC = WatermarkSpec(vocabulary_size=1000, tokenizer="none", key_fingerprint=KEY.fingerprint, global_share=0.5)
RING = KeyRing.from_master(KEY, tenants=("acme", "zenith"))
SETTINGS = TraceSettings(alpha=1e-3, decoy_count=20)


def evidence() -> Evidence:
    rng = np.random.default_rng(5)
    contexts = rng.integers(0, 1000, (60, 2)).astype(np.uint32)
    context = np.repeat(np.arange(60), 8)
    tokens = np.concatenate([rng.choice(1000, 8, replace=False) for _ in range(60)]).astype(np.uint32)
    weights = rng.integers(1, 60, 480) * rng.choice([-1, 1], 480)
    tuples = WeightedTuples(contexts, context, tokens, weights, np.full(60, -1))
    return Evidence(tuples, np.arange(1, 61))


def traced(folder: Path, ring: KeyRing = RING) -> TraceRecord:
    data = encode_evidence(evidence())
    (folder / EVIDENCE_FILE).write_bytes(data)
    found = conclude(evidence(), SPEC, ring, "p-value", SETTINGS)
    return TraceRecord(
        mode="weights",
        created="2026-11-24T00:00:00+00:00",
        arguments={},
        versions=versions(),
        spec=SPEC,
        spec_id=SPEC.spec_id,
        key_fingerprint=KEY.fingerprint,
        commitment=None,
        alpha=SETTINGS.alpha,
        student=ModelSeen(name="suspect", sha256="", tokenizer="same"),
        references=[],
        readings=[],
        served=None,
        readout="entropy",
        sided="upper",
        basis="p-value",
        contexts=60,
        comparisons=[],
        share=not_identified("no calibration students"),
        plan=None,
        queries=None,
        files=[FileHash(name=EVIDENCE_FILE, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
        **{name: getattr(found, name) for name in found.__dataclass_fields__},
    )


def test_the_same_evidence_and_keys_give_every_number_again(tmp_path: Path) -> None:
    record = traced(tmp_path)
    assert [h.key for h in record.hypotheses] == ["global", "tenant:acme", "tenant:zenith"]
    assert recompute_trace(record, RING, tmp_path) == []


def test_a_changed_total_is_noticed(tmp_path: Path) -> None:
    record = traced(tmp_path)
    first = msgspec.structs.replace(record.hypotheses[0], total=record.hypotheses[0].total + 1)
    changed = msgspec.structs.replace(record, hypotheses=[first, *record.hypotheses[1:]])
    assert "other totals" in recompute_trace(changed, RING, tmp_path)


def test_a_changed_decoy_is_noticed(tmp_path: Path) -> None:
    record = traced(tmp_path)
    decoys = [record.controls.decoy_log10_pvalues[0] - 1, *record.controls.decoy_log10_pvalues[1:]]
    controls = msgspec.structs.replace(record.controls, decoy_log10_pvalues=decoys)
    assert "other decoys" in recompute_trace(msgspec.structs.replace(record, controls=controls), RING, tmp_path)


def test_a_changed_pvalue_of_all_accounts_is_noticed_and_an_older_report_has_none(tmp_path: Path) -> None:
    record = traced(tmp_path)
    assert record.together is not None
    changed = msgspec.structs.replace(record, together=record.together - 1)
    assert recompute_trace(changed, RING, tmp_path) == ["other p-value of all accounts together"]
    assert recompute_trace(msgspec.structs.replace(record, together=None), RING, tmp_path) == []


def test_other_evidence_another_key_or_none_is_one_line(tmp_path: Path) -> None:
    record = traced(tmp_path)
    with pytest.raises(DyetraceError, match="wrong key"):
        recompute_trace(record, KeyRing.from_master(SecretKey(bytes(32))), tmp_path)
    path = tmp_path / EVIDENCE_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DyetraceError, match="is not the evidence of the report"):
        recompute_trace(record, RING, tmp_path)
    path.unlink()
    with pytest.raises(DyetraceError, match="belongs beside the report"):
        recompute_trace(record, RING, tmp_path)


def test_an_account_recomputes_its_own_test_alone(tmp_path: Path) -> None:
    """Its key says nothing of the others' numbers, and notices a change in its own."""
    record = traced(tmp_path)
    own = TenantKey.from_master(KEY, "acme").ring()
    assert recompute_trace(record, own, tmp_path) == []
    for name, noticed in (("tenant:acme", True), ("tenant:zenith", False), ("global", False)):
        changed = [msgspec.structs.replace(h, total=h.total + 1) if h.key == name else h for h in record.hypotheses]
        assert bool(recompute_trace(msgspec.structs.replace(record, hypotheses=changed), own, tmp_path)) == noticed
    stranger = TenantKey.from_master(KEY, "nadir").ring()
    with pytest.raises(DyetraceError, match="does not concern this key"):
        recompute_trace(record, stranger, tmp_path)
