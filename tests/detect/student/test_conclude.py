"""What a trace concludes: the right tenants and no others, coalitions that are paid for, and refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detect.multiplicity import holm_log10
from detect.student.conclude import Conclusion, conclude
from detect.student.conclude import tested_log10 as log10_used
from detect.student.evidence import Evidence, TraceSettings
from detect.student.hypothesis import key_test, of_global_key
from detect.student.score import TraceScore
from detect.student.weights import WeightedTuples
from tests.detect.calibration import assert_calibrated, fresh_keys
from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
TENANTS = ("acme", "borea", "cygnus", "delphi", "ember", "fjord")
SETTINGS = TraceSettings(decoy_count=40)


def make_spec(**fields: Any) -> WatermarkSpec:
    made: dict[str, Any] = {"vocabulary_size": 5000, "tokenizer": "t", "key_fingerprint": KEY.fingerprint}
    return WatermarkSpec(**made | {"subkeys": 2, "scheme": "green_list"} | fields)


SPLIT = make_spec(global_share=0.5)
RING = KeyRing.from_master(KEY, 0, TENANTS)


def evidence(spec: WatermarkSpec, lean: dict[str, float], contexts: int = 600, seed: int = 0) -> Evidence:
    """Weights of a student that leans, ever so much, to the words of some keys ("global" or tenants)."""
    rng = np.random.default_rng(seed)
    score = TraceScore.of(spec.build_scheme())
    context = np.repeat(np.arange(contexts), 4)
    rows = rng.choice(5000, (contexts, spec.context_width)).astype(np.uint32)
    tokens = np.stack([rng.choice(5000, 4, replace=False) for _ in range(contexts)]).ravel().astype(np.uint32)
    weights = rng.normal(0, 10, len(tokens))
    empty = WeightedTuples(rows, context, tokens, np.ones(len(tokens), dtype=np.int64), np.full(contexts, -1))
    mine = of_global_key(spec, RING.selector, empty)[context]
    for name, strength in lean.items():
        key = RING.global_key if name == "global" else RING.tenants[name]
        assert key is not None
        for index in range(spec.subkeys):
            nonces = np.ascontiguousarray(prf.nonces(rows, None)[:, context])
            scores = score(prf.words_at(subkey(key, index).words, nonces, tokens))
            weights += np.where(mine == (name == "global"), strength * 10 * (scores - score.mean) / score.sd, 0.0)
    rounded = np.clip(np.rint(weights), -64, 64).astype(np.int64)
    kept = rounded != 0
    tuples = WeightedTuples(rows, context[kept], tokens[kept], rounded[kept], np.full(contexts, -1))
    return Evidence(tuples, np.arange(1, contexts + 1))


def concluded(lean: dict[str, float], spec: WatermarkSpec = SPLIT, **more: Any) -> Conclusion:
    settings = more.pop("settings", SETTINGS)
    basis = more.pop("basis", "p-value")
    return conclude(evidence(spec, lean, **more), spec, RING, basis, settings)


@pytest.mark.parametrize("basis", ["p-value", "e-value"])
def test_the_tenant_whose_answers_were_used_is_named_and_no_other(basis: str) -> None:
    found = concluded({"cygnus": 0.35}, basis=basis)
    assert found.found and found.identified == ["cygnus"] and not found.coalitions
    assert found.identification.startswith("The outputs of cygnus were")
    for h in found.hypotheses:
        assert (h.log10_pvalue_adjusted <= -6) == (h.key == "tenant:cygnus")
    assert found.log10_pvalue == min(h.log10_pvalue_adjusted for h in found.hypotheses)


def test_the_choice_among_keys_is_paid_for() -> None:
    found = concluded({"cygnus": 0.1})
    raw = [h.log10_pvalue for h in found.hypotheses]
    np.testing.assert_allclose([h.log10_pvalue_adjusted for h in found.hypotheses], holm_log10(raw))
    assert len(raw) == 7
    assert found.log10_pvalue == pytest.approx(min(0.0, min(raw) + np.log10(7)))


def test_two_tenants_who_each_left_enough_are_both_named() -> None:
    assert concluded({"acme": 0.35, "ember": 0.35}).identified == ["acme", "ember"]


COLLUDING = {"acme": 0.1, "delphi": 0.1, "ember": 0.1}


def test_colluding_tenants_are_named_together_where_none_stands_out_alone() -> None:
    found = concluded(COLLUDING)
    assert found.identified == []
    (together,) = found.coalitions
    assert set(together.tenants) <= COLLUDING.keys() and len(together.tenants) >= 2
    assert together.log10_pvalue < together.log10_pvalue_adjusted <= -6
    assert found.identification.startswith("No single tenant is identified; together ")


def test_too_little_from_each_of_them_is_not_identified() -> None:
    found = concluded({name: 0.02 for name in COLLUDING})
    assert found.identified == [] and found.coalitions == [] and not found.found
    assert found.identification == "Not identified: none of the 6 tenants tested left evidence."


def test_a_mark_of_the_global_key_alone_identifies_nobody() -> None:
    found = concluded({"global": 0.4})
    assert found.found and found.identified == []
    assert found.identification.startswith("Not identified: the mark is there, but none of the 6")


def test_without_tenants_nobody_can_be_identified() -> None:
    spec = make_spec()
    found = concluded({"global": 0.4}, spec)
    assert found.found and [h.key for h in found.hypotheses] == ["global"]
    assert found.identification == "Not identified: no tenant was tested."


def test_nobody_is_named_and_nothing_found_under_fresh_keys() -> None:
    """The family's p-value, over keys that had no part in the evidence: uniform or larger."""
    some = evidence(SPLIT, {"acme": 0.5}, contexts=40)
    p = []
    for key in fresh_keys("families", 80):
        spec = make_spec(global_share=0.5, key_fingerprint=key.fingerprint)
        ring = KeyRing.from_master(key, 0, TENANTS)
        found = conclude(some, spec, ring, "p-value", TraceSettings(alpha=0.01, decoy_count=0))
        assert found.log10_pvalue is not None
        p.append(10**found.log10_pvalue)
    assert_calibrated(np.array(p))


def test_decoys_that_contradict_the_test_leave_no_answer() -> None:
    """Every word counted nine times over, as by a reader that takes equal contexts for different ones."""
    once = evidence(SPLIT, {"acme": 0.5}, contexts=300)
    t, copies = once.tuples, 9
    tuples = WeightedTuples(
        np.tile(t.contexts, (copies, 1)),
        np.concatenate([t.context + i * len(t.contexts) for i in range(copies)]),
        np.tile(t.tokens, copies),
        np.tile(t.weights, copies),
        np.tile(t.subkeys, copies),
    )
    spoiled = Evidence(tuples, np.arange(1, len(tuples.contexts) + 1))
    found = conclude(spoiled, SPLIT, RING, "p-value", TraceSettings())
    assert found.refused is not None and "decoy keys contradict" in found.refused
    assert found.log10_pvalue is None and not found.found and not found.identified and not found.coalitions
    assert conclude(once, SPLIT, RING, "p-value", TraceSettings()).refused is None


def test_no_weighted_tuple_is_no_answer() -> None:
    found = conclude(evidence(SPLIT, {}).until(0), SPLIT, RING, "p-value", SETTINGS)
    assert found.refused is not None and found.refused.startswith("nothing to test")
    assert not found.found and found.log10_pvalue is None and found.curve == []


def test_a_spec_of_tenants_alone_needs_tenants() -> None:
    spec = make_spec(global_share=0.0)
    with pytest.raises(DyetraceError, match="no key to test"):
        conclude(evidence(spec, {}), spec, KeyRing.from_master(KEY), "p-value", SETTINGS)


def test_a_mark_that_was_subtracted_is_seen_from_both_sides_only() -> None:
    lean = {"global": -0.4}
    assert not concluded(lean).found
    both = TraceSettings(sided="two-sided", decoy_count=20)
    assert concluded(lean, settings=both).found
    assert concluded(lean, settings=both, basis="e-value").found


def test_what_a_verdict_uses_is_the_tail_or_the_evalue() -> None:
    assert log10_used("p-value", "upper", -3.0, -0.1, 2.0) == -3.0
    assert log10_used("p-value", "two-sided", -0.1, -3.0, 2.0) == pytest.approx(-3 + np.log10(2))
    assert log10_used("p-value", "two-sided", -0.2, -0.3, 0.0) == 0.0
    assert log10_used("e-value", "upper", -9.0, -0.1, 2.0) == -2.0
    assert log10_used("e-value", "upper", -9.0, -0.1, -2.0) == 0.0


def test_the_curve_ends_at_the_whole_evidence_and_counts_steps() -> None:
    found = concluded({"global": 0.3})
    last, first = found.curve[-1], found.hypotheses[0]
    assert last.count == 600 and len(found.curve) == 16
    assert last.log10_pvalue == pytest.approx(first.log10_pvalue)
    assert last.log10_evalue == pytest.approx(first.log10_evalue)
    assert found.curve[0].log10_pvalue is not None and found.curve[0].log10_pvalue > first.log10_pvalue


def test_power_says_what_was_needed() -> None:
    found = concluded({"global": 0.3})
    first = found.hypotheses[0]
    assert first.log10_pvalue < -6
    assert found.power.contexts_needed is not None and found.power.contexts_needed < first.contexts
    # z of 1e-6 is 4.753, of power .95 is 1.645.
    assert found.power.detectable_z_per_context == pytest.approx((4.753 + 1.645) / first.contexts**0.5, rel=1e-3)
    assert concluded({"global": -0.3}).power.contexts_needed is None


def test_tests_of_steps_are_those_of_the_whole() -> None:
    some = evidence(SPLIT, {"acme": 0.3}, contexts=80)
    for name, key in (("global", RING.global_key), ("tenant:acme", RING.tenants["acme"])):
        assert key is not None
        of_global = name == "global"
        whole = key_test(SPLIT, RING.selector, some.tuples, of_global=of_global)
        early = some.steps <= 30
        pieces = [some.tuples.of_contexts(chosen) for chosen in (early, ~early)]
        parts = [key_test(SPLIT, RING.selector, piece, of_global=of_global) for piece in pieces]
        assert whole.totals([key])[0] == sum(part.totals([key])[0] for part in parts)
        growth = sum(part.log_growths(int(part.totals([key])[0])) for part in parts)
        np.testing.assert_allclose(whole.log_growths(int(whole.totals([key])[0])), growth, atol=1e-9)
