"""From evidence to a verdict: keys, accounts, answers, decoys, and what allows no verdict."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from detect.keyed.owners import owned_contexts
from detect.race.conclude import Conclusion, Live, conclude, log10_threshold, rows_of
from detect.race.evidence import RaceEvidence, read_evidence
from detect.race.hits import log10_tail
from detect.records.key_name import GLOBAL, KeyName
from detect.records.race import RaceAsk
from tests.detect.race.world import MASTER, SIBLING, Served, memory, path, readout, serve, spec_of
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.spec import WatermarkSpec

RING = KeyRing.from_master(MASTER)
ACCOUNTS = ("acme", "birch", "cedar")
SHARED = KeyRing.from_master(MASTER, 0, ACCOUNTS)
ASKS: tuple[RaceAsk, ...] = ("weights", "prompt-logprobs", "echo", "logprobs", "bias", "greedy")


def concluded(evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing = RING, **given: object) -> Conclusion:
    options = {"alpha": 1e-6, "decoy_seed": "tests", "decoy_count": 20, **given}
    return conclude(evidence, spec, ring, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served() -> Served:
    return serve(spec_of(), RING, 40)


@pytest.mark.parametrize("ask", ASKS)
def test_a_suspect_that_remembers_is_found_and_a_sibling_is_not(ask: RaceAsk, served: Served) -> None:
    found = concluded(readout(served, spec_of(), ask, memory(0.4)), spec_of())
    assert found.found
    assert found.refused is None
    assert found.log10_pvalue == -found.log10_evalue < -10
    innocent = concluded(readout(served, spec_of(), ask), spec_of())
    assert not innocent.found
    assert innocent.refused is None
    assert innocent.log10_evalue < 2


@pytest.mark.parametrize("scheme", ["tournament", "green_list"])
def test_so_it_is_under_the_other_schemes_and_hits_are_no_counts(scheme: str) -> None:
    spec = spec_of(scheme)
    given = serve(spec, RING, 60)
    found = concluded(readout(given, spec, "weights", memory(0.5)), spec)
    assert found.found
    (only,) = found.hypotheses
    assert only.log10_pvalue is None
    assert only.hits > only.expected > 0
    assert not concluded(readout(given, spec, "weights"), spec).found


def test_hits_are_counted_and_their_tail_is_that_of_the_chances(served: Served) -> None:
    evidence = readout(served, spec_of(), "greedy", memory(0.4))
    (only,) = concluded(evidence, spec_of()).hypotheses
    chances = evidence.chances[np.arange(len(evidence)), evidence.said]
    assert only.hits == int(only.hits)
    assert only.expected == pytest.approx(chances.sum())
    assert only.log10_pvalue == pytest.approx(log10_tail(chances, int(only.hits)), rel=1e-4)
    assert only.cuts == len(evidence)
    (early,) = concluded(evidence, spec_of(), early=True).hypotheses
    assert early.log10_pvalue is None
    assert early.log10_evalue == only.log10_evalue


def test_the_word_that_the_key_chose_is_the_one_that_was_served(served: Served) -> None:
    # Everything that was served was chosen by the key: who says just that hits everywhere.
    (only,) = concluded(readout(served, spec_of(), "greedy", memory(0.999)), spec_of()).hypotheses
    assert only.hits == only.cuts


def test_unknown_sub_keys_cost_something_and_hide_nobody() -> None:
    spec = spec_of(subkeys=4)
    given = serve(spec, RING, 80)
    known = concluded(readout(given, spec, "weights", memory(0.5)), spec)
    unknown = concluded(readout(given, spec, "weights", memory(0.5), known=False), spec)
    assert known.log10_evalue > unknown.log10_evalue > 10
    assert unknown.hypotheses[0].log10_pvalue is None
    assert known.hypotheses[0].log10_pvalue is not None


def test_the_accounts_whose_answers_were_learnt_are_named_and_no_others() -> None:
    spec = spec_of(global_share=0.5)
    given = serve(spec, SHARED, 90)
    reply = memory(0.0)

    def of_birch(evidence: RaceEvidence) -> RaceEvidence:
        remembered = readout(given, spec, "weights", memory(0.7))
        mine = (given.account[evidence.documents] == ACCOUNTS.index("birch"))[:, None]
        return dataclasses.replace(evidence, shares=np.where(mine, remembered.shares, evidence.shares))

    found = concluded(of_birch(readout(given, spec, "weights", reply)), spec, SHARED)
    assert found.identified == ["birch"]
    by_name = {one.key: one for one in found.hypotheses}
    assert list(by_name) == ["global", "tenant:acme", "tenant:birch", "tenant:cedar"]
    birch = by_name["tenant:birch"]
    assert birch.log10_evalue_adjusted == pytest.approx(birch.log10_evalue - math.log10(3))
    assert by_name["global"].log10_evalue_adjusted == by_name["global"].log10_evalue
    assert {one.account for one in found.lit[:5]} == {"birch"}
    assert found.lit == sorted(found.lit, key=lambda one: -one.log10_evalue)
    assert all(one.log10_evalue > 0 for one in found.lit)


def test_an_account_of_no_cuts_is_listed_with_an_evalue_of_one() -> None:
    spec = spec_of(global_share=0.5)
    ring = KeyRing.from_master(MASTER, 0, ACCOUNTS)
    given = serve(spec, ring, 12)
    evidence = readout(given, spec, "greedy")
    mine = given.account[evidence.documents] == 0
    kept = mine | owned_contexts(spec, ring.selector, evidence.contexts)[True]
    rows = ("contexts", "subkeys", "documents", "positions", "tokens", "chances", "said", "shares", "steps")
    part = dataclasses.replace(evidence, **{name: getattr(evidence, name)[kept] for name in rows})
    by_name = {one.key: one for one in concluded(part, spec, ring).hypotheses}
    assert by_name["tenant:cedar"].cuts == 0
    assert by_name["tenant:cedar"].log10_evalue == 0


def test_each_cut_is_of_the_key_that_marks_it_or_of_none_that_is_held() -> None:
    spec = spec_of(global_share=0.5)
    contexts = np.random.default_rng(1).integers(0, 50, (200, 2)).astype(np.uint32)
    account = np.tile(np.array([0, 1, -1, 2], dtype=np.int32), 50)
    mine = owned_contexts(spec, SHARED.selector, contexts)[True]
    held = KeyRing.from_master(MASTER, 0, ("acme", "cedar"))
    names = rows_of(contexts, account, ACCOUNTS, spec, held)
    wanted = {0: KeyName("acme"), 1: None, -1: None, 2: KeyName("cedar")}
    assert names == [GLOBAL if of_all else wanted[whose] for of_all, whose in zip(mine, account.tolist(), strict=True)]
    handed = TenantKey.from_master(MASTER, "acme").ring()
    alone = rows_of(contexts, account, ACCOUNTS, spec, handed)
    assert alone == [
        None if of_all or whose else KeyName("acme") for of_all, whose in zip(mine, account.tolist(), strict=True)
    ]
    assert set(rows_of(contexts, account, ACCOUNTS, spec_of(), SHARED)) == {GLOBAL}


def test_cuts_whose_key_is_missing_are_refused_in_a_line() -> None:
    spec = spec_of(global_share=0.5)
    evidence = readout(serve(spec, SHARED, 12), spec, "greedy")
    with pytest.raises(DyetraceError, match="cuts are marked by keys that are not among those that were loaded"):
        concluded(evidence, spec, KeyRing.from_master(MASTER, 0, ("acme",)))


def test_evidence_of_another_spec_is_refused_in_a_line(served: Served) -> None:
    evidence = readout(served, spec_of(), "greedy")
    with pytest.raises(DyetraceError, match="made under another spec"):
        concluded(evidence, spec_of(context_width=3))
    with pytest.raises(DyetraceError, match="made under another spec"):
        concluded(dataclasses.replace(evidence, subkeys=evidence.subkeys + 2), spec_of(subkeys=2))


def test_a_context_twice_under_the_global_key_is_refused_whoever_was_served() -> None:
    spec = spec_of(global_share=0.5)
    evidence = readout(serve(spec, SHARED, 30), spec, "greedy")
    marked = owned_contexts(spec, SHARED.selector, evidence.contexts)[True]
    first = int(np.flatnonzero(marked)[0])
    own = int(np.flatnonzero(~marked)[0])
    for row, told in ((first, "twice in the evidence"), (own, "")):
        later = next(
            number
            for number in range(row + 1, len(evidence))
            if evidence.account[evidence.documents[number]] != evidence.account[evidence.documents[row]]
        )
        contexts = evidence.contexts.copy()
        contexts[later] = contexts[row]
        twice = dataclasses.replace(evidence, contexts=contexts)
        if told:
            with pytest.raises(DyetraceError, match=told):
                concluded(twice, spec, SHARED)
        else:
            concluded(twice, spec, SHARED)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ask", ["weights", "greedy"])
def test_what_is_watched_while_asking_is_what_is_concluded(ask: RaceAsk, known: bool) -> None:
    spec = spec_of(subkeys=3, global_share=0.5)
    evidence = readout(serve(spec, SHARED, 25), spec, ask, memory(0.3), known=known)
    live = Live(spec, SHARED)
    assert live.log10_evalue == 0
    rows = [live.observe(evidence.part(slice(row, row + 1))) for row in range(len(evidence))]
    whole = concluded(evidence, spec, SHARED)
    assert live.log10_evalue == whole.log10_evalue
    assert [rows[point.count - 1] for point in whole.curve] == [point.log10_evalue for point in whole.curve]
    assert whole.curve[-1].count == len(evidence)


def test_one_process_under_each_cuts_own_key_is_the_path_of_the_key_where_there_is_one(served: Served) -> None:
    evidence = readout(served, spec_of(), "weights", memory(0.2))
    assert concluded(evidence, spec_of()).log10_evalue == path(evidence, spec_of(), RING)[-1]


def test_keys_that_nobody_used_find_nothing_and_refuse_the_verdict_where_they_do(served: Served) -> None:
    evidence = readout(served, spec_of(), "weights", memory(0.4))
    sound = concluded(evidence, spec_of())
    assert len(sound.controls.decoy_log10_evalues) == 20
    assert max(sound.controls.decoy_log10_evalues) < 4
    # Chances that are no chances: whatever the key, far more is won than was paid for.
    said = evidence.chances.argmax(axis=1)
    forged = np.full_like(evidence.chances, 0.5 / 15)
    flat = np.where(np.arange(16) == evidence.chances.argmin(axis=1)[:, None], 0.5, forged)
    odds = dataclasses.replace(evidence, chances=flat * 1e-3 + evidence.chances * 1e-3, said=said.astype(np.int32))
    broken = concluded(odds, spec_of())
    assert broken.refused is not None
    assert "contradicts itself" in broken.refused
    assert broken.log10_pvalue is None
    assert not broken.found
    assert broken.identified == []


def test_an_objection_or_silence_allows_no_verdict(served: Served) -> None:
    evidence = readout(served, spec_of(), "greedy", memory(0.4))
    objected = concluded(evidence, spec_of(), objection="the requests were not in order")
    assert (objected.refused, objected.found, objected.log10_pvalue) == ("the requests were not in order", False, None)
    assert objected.log10_evalue > 10
    silent = concluded(dataclasses.replace(evidence, said=np.full(len(evidence), -1, np.int32)), spec_of())
    assert silent.refused is not None
    assert "nothing was measured" in silent.refused
    assert silent.silent == len(evidence)
    nothing = concluded(evidence.until(0), spec_of())
    assert nothing.refused is not None
    assert (nothing.curve, nothing.lit, nothing.log10_evalue) == ([], [], 0.0)


def test_the_verdict_needs_one_over_alpha(served: Served) -> None:
    evidence = readout(served, spec_of(), "greedy", memory(0.1, SIBLING))
    log10_evalue = concluded(evidence, spec_of()).log10_evalue
    assert log10_threshold(1e-6) == 6
    assert 0 < log10_evalue
    assert concluded(evidence, spec_of(), alpha=10 ** -(log10_evalue - 1e-9)).found
    assert not concluded(evidence, spec_of(), alpha=10 ** -(log10_evalue + 1e-9)).found


def test_another_party_concludes_the_same_from_the_file(served: Served, tmp_path: object) -> None:
    from pathlib import Path

    from detect.race.evidence import encode_evidence

    evidence = readout(served, spec_of(), "echo", memory(0.4))
    file = Path(str(tmp_path)) / "race.npz"
    file.write_bytes(encode_evidence(evidence))
    assert concluded(read_evidence(file), spec_of()) == concluded(evidence, spec_of())


def test_a_key_never_shows(served: Served) -> None:
    live = Live(spec_of(), RING)
    assert isinstance(RING.global_key, SecretKey)
    assert RING.global_key.reveal_hex() not in repr(vars(live))
