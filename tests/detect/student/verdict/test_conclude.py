"""What a trace concludes: the right accounts and no others whoever is guilty, and refusal."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from detect.keyed.owners import owned_contexts
from detect.laws.multiplicity import holm_log10
from detect.records.written import format_p
from detect.student.verdict.conclude import Conclusion, conclude, log10_evalue_of
from detect.student.verdict.conclude import tested_log10 as log10_used
from detect.student.verdict.evidence import Evidence, TraceSettings, encode_evidence, read_evidence
from detect.student.verdict.hypothesis import key_test
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import WeightedTuples
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
    mine = owned_contexts(spec, RING.selector, empty.contexts)[True][context]
    for name, strength in lean.items():
        key = RING.global_key if name == "global" else RING.tenants[name]
        assert isinstance(key, SecretKey)
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
    assert found.found and found.identified == ["cygnus"]
    assert found.identification.startswith("The outputs of cygnus were")
    for h in found.hypotheses:
        assert (h.log10_pvalue_adjusted <= -6) == (h.key == "tenant:cygnus")
    smallest = min(h.log10_pvalue_adjusted for h in found.hypotheses)
    assert found.together is not None and found.log10_pvalue == np.log10(2) + min(smallest, found.together)


def test_the_choice_among_keys_is_paid_for() -> None:
    found = concluded({"cygnus": 0.1})
    raw = [h.log10_pvalue for h in found.hypotheses]
    np.testing.assert_allclose([h.log10_pvalue_adjusted for h in found.hypotheses], holm_log10(raw))
    assert len(raw) == 7
    assert found.together is not None
    # And the question of all accounts together is another one.
    assert found.log10_pvalue == pytest.approx(min(0.0, min(min(raw) + np.log10(7), found.together) + np.log10(2)))


def test_two_tenants_who_each_left_enough_are_both_named() -> None:
    assert concluded({"acme": 0.35, "ember": 0.35}).identified == ["acme", "ember"]


COLLUDING = {"acme": 0.1, "delphi": 0.1, "ember": 0.1}


@pytest.mark.parametrize("basis", ["p-value", "e-value"])
def test_where_no_account_stands_out_it_is_said_that_one_of_all_left_its_mark(basis: str) -> None:
    lean = COLLUDING if basis == "p-value" else {name: 0.12 for name in COLLUDING}
    found = concluded(lean, basis=basis)
    assert found.identified == []
    assert found.together is not None and found.together <= -6 - np.log10(2)
    sign = "=" if basis == "p-value" else "<="
    assert found.identification == (
        "No single account is identified. One at least of the 6 accounts tested left its mark "
        f"(p {sign} {format_p(found.together)})."
    )
    assert not any(name in found.identification for name in TENANTS)


def test_the_sums_are_paid_for() -> None:
    """The best of the sums of two to five totals, times groups of that size, times four sizes."""
    some = evidence(SPLIT, COLLUDING)
    found = conclude(some, SPLIT, RING, "p-value", SETTINGS)
    test = key_test(SPLIT, RING.selector, some.tuples, of_global=False)
    largest = sorted((h.total for h in found.hypotheses if h.key != "global"), reverse=True)
    paid = [
        float(test.log10_pvalues([sum(largest[:size])], keys=size)[0]) + np.log10(comb(6, size) * 4)
        for size in (2, 3, 4, 5)
    ]
    assert found.together == pytest.approx(min(paid))
    alone = KeyRing.from_master(KEY, 0, ("acme",))
    assert conclude(some, SPLIT, alone, "p-value", SETTINGS).together is None


def test_sums_at_looks_fixed_beforehand_have_the_mean_of_their_evalues() -> None:
    once = evidence(SPLIT, {name: 0.15 for name in COLLUDING})
    looked = Evidence(once.tuples, once.steps, (150, 300, 600), 6)
    found = conclude(looked, SPLIT, RING, "e-value", SETTINGS)
    whole = conclude(once, SPLIT, RING, "e-value", SETTINGS)
    assert found.together is not None and whole.together is not None
    # Three of six looks were reached; the last one holds nearly all of the evidence.
    assert found.together == pytest.approx(whole.together + np.log10(6), abs=0.05)


def test_too_little_from_each_of_them_is_not_identified() -> None:
    found = concluded({name: 0.02 for name in COLLUDING})
    assert found.identified == [] and found.together is not None and found.together > -6 and not found.found
    assert found.identification == "Not identified: none of the 6 accounts tested left evidence."


def test_a_mark_of_the_global_key_alone_identifies_nobody() -> None:
    found = concluded({"global": 0.4})
    assert found.found and found.identified == []
    assert found.identification.startswith("Not identified: the mark is there, but none of the 6")


def test_without_tenants_nobody_can_be_identified() -> None:
    spec = make_spec()
    found = concluded({"global": 0.4}, spec)
    assert found.found and [h.key for h in found.hypotheses] == ["global"]
    assert found.identification == "Not identified: no account was tested." and found.together is None


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


INNOCENTS = tuple(f"innocent-{i}" for i in range(20))


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.4])
def test_no_innocent_is_named_whoever_is_guilty(strength: float) -> None:
    """One guilty account with no mark, too little of it to be named, or enough; 20 innocents; 1,000 fresh keys.

    The suspect and its weights are those that the guilty account's text made; the innocents' keys are drawn anew. To
    save time, keys are passed over where no innocent reaches 3 standard deviations (to be named takes 3.5) and, where
    nobody is guilty, no sum 3.9 (4.4 is the least that counts).
    """
    guilty = evidence(SPLIT, {"acme": strength}, contexts=60, seed=4)
    settings = TraceSettings(alpha=0.01, decoy_count=0)
    test = key_test(SPLIT, RING.selector, guilty.tuples, of_global=False)
    accused = together = named = looked_at = 0
    for key in fresh_keys(f"innocents{strength}", 1_000):
        others = KeyRing.from_master(key, 0, INNOCENTS).tenants
        ring = KeyRing(RING.master_fingerprint, RING.selector, None, {"acme": RING.tenants["acme"], **others})
        zs = np.array([test.z(total) for total in test.totals(list(ring.tenants.values())).tolist()])
        sums = np.cumsum(np.sort(zs)[:-6:-1]) / np.sqrt(np.arange(1, 6))
        if zs[1:].max() < 3 and (strength > 0 or sums[1:].max() < 3.9):
            continue
        found = conclude(guilty, SPLIT, ring, "p-value", settings)
        assert found.together is not None
        looked_at += 1
        accused += bool(set(found.identified) - {"acme"})
        named += "acme" in found.identified
        together += found.together <= np.log10(settings.alpha / 2)
    # Binomial: more than 12 of 1,000 at a chance of .005, or 18 at .01, happens once in 150 at most.
    assert accused <= 12
    if strength == 0.0:
        assert named == 0 and together <= 12
    else:
        assert named == (looked_at if strength == 0.4 else 0)
        assert together >= 10  # that one of all of them left its mark, which is true


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
    assert found.log10_pvalue is None and not found.found and not found.identified and found.together is None
    assert found.identification == "Not identified: no answer is given."
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


# --- looks at moments fixed beforehand ------------------------------------------------------------------


def looked(made: Evidence, looks: tuple[int, ...], planned: int) -> Evidence:
    return Evidence(made.tuples, made.steps, looks, planned)


def test_the_evidence_of_several_looks_is_the_mean_of_their_evalues_those_not_reached_counting_nothing() -> None:
    spec = make_spec()
    made = evidence(spec, {"global": 0.4})
    key = RING.global_key
    assert key is not None
    alone = [log10_evalue_of(made.until(n), spec, RING, [key], "upper", of_global=True) for n in (100, 300)]
    assert all(value is not None for value in alone)
    expected = np.log10(sum(10.0**value for value in alone if value is not None) / 5)
    found = log10_evalue_of(looked(made, (100, 300), 5), spec, RING, [key], "upper", of_global=True)
    assert found == pytest.approx(expected)
    assert log10_evalue_of(looked(made, (), 5), spec, RING, [key], "upper", of_global=True) is None


def test_who_stops_at_the_best_look_gains_nothing() -> None:
    """Whatever look the key makes best: the mean over all planned ones exceeds 20 in 5% of keys at most."""
    spec = make_spec()
    made = evidence(spec, {})
    looks = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600)
    found = []
    for key in fresh_keys("looks", 400):
        ring = KeyRing.from_master(key)
        assert ring.global_key is not None
        values = [
            log10_evalue_of(looked(made, looks[:n], len(looks)), spec, ring, [ring.global_key], "upper", of_global=True)
            for n in (1, 4, 8, len(looks))
        ]
        found.append(max(value for value in values if value is not None))
    assert np.mean(np.array(found) >= np.log10(20)) <= 0.05


def test_looks_stand_in_the_evidence_file(tmp_path: Any) -> None:
    made = looked(evidence(make_spec(), {}, contexts=20), (3, 3, 7), 6)
    path = tmp_path / "evidence.npz"
    path.write_bytes(encode_evidence(made))
    again = read_evidence(path)
    assert (again.looks, again.planned) == ((3, 3, 7), 6)
