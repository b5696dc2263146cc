"""A suspect is tested through a real endpoint: planned first, asked once, stopped at the target, gone on with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Fault, Server
from detect.records.twins import TwinRecord
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import LEDGER_FILE, Draft, verify_chain
from detect.student.asking.ledger import Ledger as Replies
from detect.twins.endpoint import Standing, trace_twins_endpoint
from detect.twins.evidence import EVIDENCE_FILE, read_evidence
from detect.twins.plan import PLAN_FILE, kept_plan, plan_sha256
from detect.twins.preparing import TwinsJob
from detect.twins.readings import WORK
from tests.detect.student.asking.planned import QUICK
from tests.detect.twins.conftest import guilty
from tests.detect.twins.made import KEY, ledger_of, twins
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys import SecretKey
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair

Serve = Callable[..., Server]


def job(url: str, ledger: Path, **more: Any) -> TwinsJob:
    fields: dict[str, Any] = {"model": "student", "ask": "answers", "target_log10": 3.0, "alpha": 1e-3}
    return TwinsJob(suspect=url, ledger=ledger, **{"secret": KEY, **fields, **more})


def run(server: Server, ledger: Path, output: Path, **more: Any) -> TwinRecord:
    how = {name: more.pop(name) for name in ("progress", "api_key") if name in more}
    return trace_twins_endpoint(job(server.url, ledger, **more), output, client=QUICK, **how)


def about_pairs(server: Server) -> list[str]:
    """Prompts that the server was asked about, the one of the probe left out."""
    return [body["messages"][0]["content"] for body in _bodies(server) if "messages" in body and not _is_probe(body)]


def _bodies(server: Server) -> list[dict[str, Any]]:
    return [received.body for received in server.received]


def _is_probe(body: dict[str, Any]) -> bool:
    return "Count from one to ten" in json.dumps(body)


def test_a_suspect_that_says_what_was_served_is_found_and_asked_no_further(
    suspect: Server, ledger: Path, tmp_path: Path
) -> None:
    told: list[Standing] = []
    found = run(suspect, ledger, tmp_path / "out", progress=told.append)
    assert found.found and found.log10_evalue >= 3 and found.refused is None
    assert found.queries is not None and found.queries.stopped == "target reached"
    assert 8 <= found.pairs.asked < 30 and found.pairs.used == 40 and found.pairs.silent == 0
    assert found.measures[0].wins == found.pairs.asked
    assert [standing.asked for standing in told] == list(range(found.pairs.asked + 1))
    assert told[-1].log10_evalue == found.log10_evalue and told[-2].log10_evalue < 3
    first = found.shown[0]
    assert first.suspect == first.served != first.withheld
    assert found.share is not None and found.share.low > 0.2


def test_one_that_says_neither_is_not_found(suspect: Server, tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [twins(number, "It was one.", "It was two.") for number in range(12)])
    found = run(suspect, ledger, tmp_path / "out")
    assert not found.found and found.log10_evalue < 3
    assert found.queries is not None and found.queries.stopped == "plan finished"
    assert found.pairs.asked == 12


def test_the_plan_is_on_the_disk_before_anything_is_asked_about_a_pair(
    serve: Serve, ledger: Path, tmp_path: Path
) -> None:
    plan, seen = tmp_path / "out" / PLAN_FILE, []

    def look(body: dict[str, Any]) -> None:
        seen.append((_is_probe(body), plan.exists()))

    found = run(serve(faults=look), ledger, tmp_path / "out")
    assert (True, False) in seen and (False, True) in seen
    assert not {(False, False), (True, True)} & set(seen)
    kept = kept_plan(tmp_path / "out")
    assert kept is not None and found.plan is not None
    assert found.plan.sha256 == plan_sha256(kept) and found.plan.first_query is not None
    assert verify_chain(tmp_path / "out" / LEDGER_FILE).plans.keys() == {found.plan.sha256}


def test_the_plan_and_the_questions_are_the_same_whichever_twins_were_served(
    serve: Serve, pairs: list[Pair], tmp_path: Path
) -> None:
    """The same pairs under a key of other coins: what is asked, and in which order, is the same."""
    other = SecretKey(bytes(range(1, 33)))
    asked = []
    for name, key in (("one", KEY), ("other", other)):
        folder = tmp_path / name
        folder.mkdir()
        mine = [
            twins(n, pair.answers[0].text, pair.answers[1].text, pair.prompt, key=key) for n, pair in enumerate(pairs)
        ]
        server = serve()
        ledger = ledger_of(folder, mine, key)
        run(server, ledger, folder / "out", secret=key, target_log10=100.0)
        asked.append(sorted(json.dumps(body, sort_keys=True) for body in _bodies(server)))
        kept = kept_plan(folder / "out")
        assert kept is not None and [pair.id for pair in kept.pairs] == [pair.id for pair in mine]
    assert {pair.served for pair in pairs} == {0, 1}
    assert asked[0] == asked[1]


def test_the_same_command_goes_on_after_a_stop_and_asks_nothing_twice(
    serve: Serve, ledger: Path, tmp_path: Path
) -> None:
    whole = run(serve(), ledger, tmp_path / "whole", target_log10=100.0)

    class Stopped(Exception):
        pass

    def stop(standing: Standing) -> None:
        if standing.asked == 7:
            raise Stopped

    server, output = serve(), tmp_path / "out"
    with pytest.raises(Stopped):
        run(server, ledger, output, progress=stop, target_log10=100.0)
    assert not (output / "report.json").exists()
    found = run(server, ledger, output, target_log10=100.0)
    # Eight prompts stand in five pairs each, and each pair has one question.
    assert set(Counter(about_pairs(server)).values()) == {5}
    assert (output / EVIDENCE_FILE).read_bytes() == (tmp_path / "whole" / EVIDENCE_FILE).read_bytes()
    assert found.log10_evalue == whole.log10_evalue
    assert sum(map(_is_probe, _bodies(server))) == 1


def test_a_budget_is_kept_and_a_larger_one_goes_on(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    found = run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=5), target_log10=100.0)
    assert found.pairs.asked == 5 and len(about_pairs(suspect)) == 5
    assert found.queries is not None and (found.queries.stopped, found.queries.requests) == ("budget spent", 5)
    more = run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=9), target_log10=100.0)
    assert more.pairs.asked == 9 and len(about_pairs(suspect)) == 9
    one, other = (read_evidence(tmp_path / "out" / EVIDENCE_FILE).ids for _ in range(2))
    assert one[:5] == other[:5]


def test_pairs_of_one_prompt_are_asked_each_for_itself(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    run(suspect, ledger, tmp_path / "out", most=16, target_log10=100.0)
    assert sorted(Counter(about_pairs(suspect)).values()) == [2] * 8


def test_accounts_are_tested_by_their_own_coins(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    found = run(suspect, ledger, tmp_path / "out", accounts=("zenith", "acme"), target_log10=100.0)
    assert [one.account for one in found.accounts] == ["acme", "zenith"]
    assert [one.pairs for one in found.accounts] == [20, 20]
    assert found.identified == ["acme", "zenith"]
    assert all(one.log10_evalue_adjusted < one.log10_evalue for one in found.accounts)


def test_only_the_named_accounts_pairs_are_asked_about(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    found = run(suspect, ledger, tmp_path / "out", accounts=("acme",), target_log10=100.0)
    assert found.pairs.eligible == found.pairs.asked == 20


def test_one_pair_is_enough_for_a_report(suspect: Server, greedy: dict[str, str], tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [guilty(greedy, 0)])
    found = run(suspect, ledger, tmp_path / "out")
    assert (found.pairs.asked, found.found) == (1, False)
    assert len(found.curve) == 1


@pytest.mark.parametrize(
    ("ends", "said"), [([], "holds no pairs yet"), ([("Yes.", "Yes.")] * 3, "3 are equal twins")], ids=["empty", "ties"]
)
def test_a_ledger_with_nothing_to_ask_about_is_refused_in_one_line(
    suspect: Server, ends: list[tuple[str, str]], said: str, tmp_path: Path
) -> None:
    ledger = ledger_of(tmp_path, [twins(number, *both) for number, both in enumerate(ends)])
    with pytest.raises(DyetraceError, match=said):
        run(suspect, ledger, tmp_path / "out")
    assert not suspect.received and not (tmp_path / "out").exists()


def test_another_key_opens_nothing(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="wrong key"):
        run(suspect, ledger, tmp_path / "out", secret=SecretKey(bytes(32)))
    assert not suspect.received


def test_a_pair_that_was_not_served_as_its_coin_says_is_no_evidence(
    suspect: Server, pairs: list[Pair], tmp_path: Path
) -> None:
    forged = twins(50, "One.", "Other.", served=1 - twins(50).served)
    with pytest.raises(EvidenceError, match="not served as the coin"):
        run(suspect, ledger_of(tmp_path, [*pairs, forged]), tmp_path / "out")


def test_a_ledger_may_grow_after_the_plan_and_the_plan_stays(
    suspect: Server, ledger: Path, greedy: dict[str, str], tmp_path: Path
) -> None:
    run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=3))
    with TwinLedger.open(ledger, KEY, write=True) as opened:
        opened.append(guilty(greedy, 60))
    found = run(suspect, ledger, tmp_path / "out", target_log10=3.0)
    assert found.pairs.used == 40 and found.ledger.pairs == 40


def test_an_account_that_was_erased_since_ends_the_test(suspect: Server, ledger: Path, tmp_path: Path) -> None:
    run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=3))
    with TwinLedger.open(ledger, KEY, write=True) as opened:
        opened.erase(account="acme")
    with pytest.raises(EvidenceError, match="erased"):
        run(suspect, ledger, tmp_path / "out")


def test_another_ledger_under_the_same_key_is_seen(
    suspect: Server, ledger: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=3))
    (tmp_path / "again").mkdir()
    with pytest.raises(EvidenceError, match="not the one that the plan was made of"):
        run(suspect, ledger_of(tmp_path / "again", pairs), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target_log10": 5.0}, "target"),
        ({"seed": "other", "sample": 0.5}, "sample, seed"),
        ({"ask": "parting"}, "ask"),
    ],
)
def test_a_folder_holds_one_test(
    suspect: Server, ledger: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    run(suspect, ledger, tmp_path / "out", budgets=Budgets(requests=3))
    with pytest.raises(DyetraceError, match=rf"not the same: {named}\)"):
        run(suspect, ledger, tmp_path / "out", **change)


def test_an_endpoint_without_what_is_asked_for_is_refused_with_what_was_tried(
    serve: Serve, ledger: Path, tmp_path: Path
) -> None:
    server = serve(faults=lambda body: Fault("status", 400) if "prompt_logprobs" in body or "echo" in body else None)
    with pytest.raises(DyetraceError, match="offers nothing of what was looked for"):
        run(server, ledger, tmp_path / "out", ask="logprobs")
    assert not about_pairs(server) and not (tmp_path / "out").exists()


def test_auto_takes_the_strongest_that_is_offered_and_says_what_it_tried(
    serve: Serve, ledger: Path, tmp_path: Path
) -> None:
    """A tiny model of random weights does not count on from six, so that going on is not taken to be offered."""
    server = serve(faults=lambda body: Fault("status", 400) if "prompt_logprobs" in body or "echo" in body else None)
    found = run(server, ledger, tmp_path / "out", ask="auto")
    assert found.ask == "answers" and found.found
    kept = kept_plan(tmp_path / "out")
    assert kept is not None and kept.ask == "answers"
    assert kept.probed[-1] == "free answers (chat): yes" and "status 400" in kept.probed[0]


def test_replies_that_were_there_before_the_plan_allow_no_verdict(
    suspect: Server, ledger: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with Replies(output / LEDGER_FILE) as replies:
        asked = Draft("asked", "0" * 64, "1" * 64, 1, {})
        (number,) = replies.append([asked])
        replies.append([Draft("answered", "0" * 64, "1" * 64, 1, {}, b"{}", number)])
    found = run(suspect, ledger, output)
    assert not found.found and found.refused is not None and "before this plan" in found.refused


def test_the_api_key_stands_in_no_file(serve: Serve, ledger: Path, tmp_path: Path) -> None:
    secret = "sk-test-0123456789abcdef"
    found = run(serve(api_key=secret), ledger, tmp_path / "out", api_key=ApiKey(secret))
    assert found.found
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_a_wrong_api_key_is_said_before_a_plan_is_made(serve: Serve, ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="check the API key"):
        run(serve(api_key="right"), ledger, tmp_path / "out", api_key=ApiKey("wrong"))
    assert not (tmp_path / "out").exists()


def test_requests_that_fail_for_good_leave_their_pairs_silent(serve: Serve, ledger: Path, tmp_path: Path) -> None:
    """Which pairs they are is the endpoint's doing; a sign is taken for each all the same, and says nothing."""

    seen: list[dict[str, Any]] = []

    def refuse(body: dict[str, Any]) -> Fault | None:
        seen.append(body)
        return Fault("status", 400) if len(seen) > 4 and "owls" in json.dumps(body) else None

    server = serve(faults=refuse)
    found = run(server, ledger, tmp_path / "out", target_log10=100.0)
    assert found.pairs.asked == 40 and 1 <= found.pairs.silent <= 5
    assert found.found


def test_what_the_owners_model_says_itself_is_asked_once_and_stands_in_the_plan(
    suspect: Server, tiny_model: tuple[Any, Any], ledger: Path, tmp_path: Path
) -> None:
    owner = tmp_path / "owner"
    for part in tiny_model:
        part.save_pretrained(owner)
    found = run(suspect, ledger, tmp_path / "out", target_log10=100.0, most=8, owner=owner, dtype="float32")
    kept = kept_plan(tmp_path / "out")
    assert kept is not None and len(kept.measure["usual_sha256"]) == 64 and kept.owner is not None
    assert "owner's log-probability" in read_evidence(tmp_path / "out" / EVIDENCE_FILE).covariate_names
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / WORK).iterdir()}
    again = run(suspect, ledger, tmp_path / "out", target_log10=100.0, most=8, owner=owner, dtype="float32")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / WORK).iterdir()} == written
    assert again.log10_evalue == found.log10_evalue
