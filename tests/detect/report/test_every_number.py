"""Every number of every kind of report: an edit is seen without any key, or it is said here why it can't be.

Detections have the same test beside their other ones (`test_detection_verify`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli import reports
from detect.cli.main import main
from detect.corpus.scan import ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.records.how_to_check import in_words
from detect.records.made import made_by
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.reading import write_record
from detect.records.report import Report
from detect.records.server_check import Check
from detect.records.trace import Control, ModelSeen, PlanSeen, Queries, Reading, Reference
from detect.records.twins import TwinRecord
from detect.report.verification import verify_report
from detect.server.ask import Manner
from detect.server.check import conclude
from detect.server.evidence import make_keys
from detect.student.power import planner
from detect.student.power.planner import Question, plan
from detect.student.power.simulated import Look, Student
from detect.student.verdict.conclude import compared
from detect.student.verdict.evidence import Evidence, TraceSettings
from detect.student.verdict.recording import write_report
from detect.student.verdict.share import estimated, not_identified
from detect.twins import bets
from tests.detect import foreign
from tests.detect.corpus.marked import SECRET, InlineEngine, documents, spec, write_jsonl
from tests.detect.report.edits import changed, unseen
from tests.detect.report.race import examples as race
from tests.detect.report.trace_examples import dose_response
from tests.detect.report.twins import examples as twins
from tests.detect.report.twins.ledgers import LEDGER, report_of, write_ledger
from tests.detect.server import test_check as server
from tests.detect.student.verdict.test_conclude import RING, evidence, make_spec
from tests.golden.make import HERE as GOLDEN
from watermark.keys import KeyRing, write_key_file

Told = TypeVar("Told", bound=Report)
Known = dict[str, str]
"""Where numbers stand whose edits no check sees, and why none can."""

FILES: Known = {r"(inputs|reference_inputs|controls\.null_corpus_inputs)\.\d+\.bytes": "the files: --inputs compares"}
DECOYS: Known = {
    r"controls\.decoy_log10_pvalues\.\d+": "the totals of decoys take the texts, or which contexts are whose, which is "
    "keyed; they enter the agreement by the one of them that is furthest from chance"
}

# ---------------------------------------------------------------------------------------------------------- scans

SCANS: Known = {
    **FILES,
    **DECOYS,
    r"arguments\.limit": "what was asked for, from which nothing on record is computed",
    r"inputs\.\d+\.(columns|turns)\.\d+\.(records|characters|count)": "what was seen in files: recompute compares",
    r"controls\.null_corpus_log10_pvalue": "the totals of the control corpus are not on record",
    r"controls\.null_key_log10_pvalue": "of each document's p-value under the decoy key the record has the bin alone",
    r"controls\.null_(key|corpus)_discoveries": "the bins bound it, and no more",
    r"hypotheses\.\d+\.smallest_log10_pvalues\.\d+": "a document's p-values under other keys than its strongest",
    r"shares\.tokens\.(low|estimate|high)": "the scores of single tuples are not on record",
}


def scanned(folder: Path, **changes: Any) -> Path:
    write_key_file(folder / "owner.key", SECRET)
    lines = (folder / "corpus.jsonl").read_text().splitlines()
    (folder / "corpus.jsonl").write_text("\n".join([*lines[:3], "not JSON", *lines[3:]]) + "\n")
    fields: dict[str, Any] = {
        "paths": [str(folder / "corpus.jsonl")],
        "specs": [spec()],
        "key": f"file:{folder / 'owner.key'}",
        "null_corpus": (),
        "settings": skipping(),
    }
    scan(ScanJob(**(fields | changes)), folder / "out", InlineEngine())
    return folder / "out" / "report.json"


def skipping(**changes: Any) -> ScanSettings:
    from detect.readers import ReadOptions

    return ScanSettings(read=ReadOptions(skip_errors=True), decoys=15, **changes)


def scan_of_one_key(folder: Path) -> Path:
    write_jsonl(folder / "corpus.jsonl", [*documents(3, 150, 1, spec()), *documents(9, 150, 2)])
    return scanned(folder)


def scan_with_accounts(folder: Path) -> Path:
    made = spec(global_share=0.5)
    rows = [*documents(3, 200, 1, made, "acme"), *documents(9, 200, 2)]
    write_jsonl(folder / "corpus.jsonl", rows)
    return scanned(folder, specs=[made], settings=skipping(tenants=("acme", "zenith")))


def scan_with_reference_and_control(folder: Path) -> Path:
    write_jsonl(folder / "corpus.jsonl", [*documents(3, 150, 1, spec()), *documents(9, 150, 2)])
    write_jsonl(folder / "reference.jsonl", documents(6, 150, 3, spec()))
    write_jsonl(folder / "control.jsonl", documents(8, 150, 4))
    beside = {"reference": [str(folder / "reference.jsonl")], "null_corpus": [str(folder / "control.jsonl")]}
    return scanned(folder, **beside)


# --------------------------------------------------------------------------------------------------------- traces

SUSPECT = ModelSeen(name="./suspect", sha256="0" * 64, tokenizer="same")
BASE = ModelSeen(name="./base", sha256="1" * 64, tokenizer="same")
CONTEXTS = 80
TRACES: Known = {
    r"arguments\.\w+": "what was asked for, from which nothing on record is computed",
    r"comparisons\.1\.(contexts|z|log10_pvalue)": "other readouts than the verdict's own, which is the first "
    "here, take the suspect's predictions",
    r"controls\.models\.\d+\.(contexts|log10_pvalue|log10_evalue)": "controls take their models' predictions",
    r"curve\.(?!15\.)\d+\.(log10_pvalue|log10_evalue)": "totals on the way take the key; the last is the end's",
    r"readings\.\d+\.(documents|tokens|barred)": "they take the texts",
    r"readings\.\d+\.(texts|prompts)_log10_pvalue": "blind tests of the texts take the key and the texts",
    r"served\.bytes": "the file: --inputs compares",
    r"share\.(standard_error|doses\.\d+\.standard_error)": "for the reader alone: the interval rests on students",
    r"share\.(effect|doses\.\d+\.(share|effect))": "what students were trained on is their trainer's word; where an "
    "end of the interval rests on others of them, it is the same",
}
SPLIT: Known = {
    **DECOYS,
    r"hypotheses\.\d+\.(total|log10_pvalue|log10_pvalue_lower|log10_evalue)": "which contexts are the global key's "
    "is keyed, and so is the law of each total",
    r"together": "the law of accounts' totals is that of their contexts, which are keyed",
}
RANKED: Known = {r"comparisons\.0\.log10_pvalue": "a readout beside the verdict is ranked among decoys of its own"}
ASKED: Known = {
    r"plan\.offered": "the plan stands in the ledger, which is not here",
    r"queries\.(requests|prompt_tokens)": "the ledger, which is not here",
}


def traced(folder: Path, made: Any, lean: dict[str, float], ring: KeyRing = RING, **seen: Any) -> Path:
    known: Evidence = seen.pop("evidence", None) or evidence(made, lean, contexts=CONTEXTS)
    basis = seen.pop("basis", "p-value")
    marked = basis == "e-value"
    reading = Reading(
        name="text.jsonl",
        sha256="2" * 64,
        marked=marked,
        documents=9,
        tokens=900,
        contexts=known.contexts,
        texts_log10_pvalue=None if marked else -0.4,
        unlike_text=2 if marked else 0,
    )
    settings = seen.pop("settings", TraceSettings(decoy_count=15, alpha=1e-3))
    fields: dict[str, Any] = {
        "mode": "weights",
        "arguments": {"decoys": 15, "contexts": 500},
        "commitment": None,
        "student": SUSPECT,
        "references": [Reference(model=BASE, share=1.0)],
        "readings": [reading],
        "served": None,
        "readout": "entropy",
        "comparisons": [compared(name, made, ring, known.tuples, basis) for name in ("entropy", "mass")],
        "share": not_identified("none"),
        "plan": None,
        "queries": None,
    }
    write_report(folder, known, made, ring, basis, settings, **(fields | seen))
    return folder / "report.json"


def trace_of_one_key(folder: Path) -> Path:
    ring = KeyRing(RING.master_fingerprint, RING.selector, RING.global_key, {})
    calibrated = dose_response(0.0)
    effect, error = calibrated.effect or 0.0, calibrated.standard_error or 0.0
    control = Control(
        what="control model", model=BASE, log10_pvalue=-0.2, log10_evalue=-0.1, readout="entropy", contexts=70
    )
    share = estimated(effect, error, calibrated.doses)
    return traced(folder, make_spec(global_share=1.0), {"global": 0.4}, ring, share=share, models=[control])


def trace_that_leans_away(folder: Path) -> Path:
    ring = KeyRing(RING.master_fingerprint, RING.selector, RING.global_key, {})
    settings = TraceSettings(decoy_count=15, alpha=1e-3, sided="two-sided")
    return traced(folder, make_spec(global_share=1.0), {"global": -0.5}, ring, settings=settings)


def trace_of_accounts(folder: Path) -> Path:
    ring = KeyRing(RING.master_fingerprint, RING.selector, None, RING.tenants)
    return traced(folder, make_spec(global_share=0.0), {"acme": 0.15, "borea": 0.15}, ring)


def trace_of_both(folder: Path) -> Path:
    return traced(folder, make_spec(global_share=0.5), {"global": 0.4, "acme": 0.3})


def trace_of_marked_answers(folder: Path) -> Path:
    ring = KeyRing(RING.master_fingerprint, RING.selector, RING.global_key, {})
    placebo = Control(
        what="placebo key", model=SUSPECT, log10_pvalue=0.0, log10_evalue=-0.3, readout="entropy", contexts=70
    )
    return traced(folder, make_spec(global_share=1.0), {"global": 0.4}, ring, basis="e-value", models=[placebo])


def refused_trace(folder: Path) -> Path:
    return traced(folder, make_spec(global_share=0.5), {"global": 0.4}, objection="answers were seen before the plan")


def trace_of_a_format(folder: Path) -> Path:
    made, ring, _ = foreign.owner("transformers-synthid", vocabulary_size=5000, tokenizer="t")
    known = evidence(make_spec(global_share=1.0), {}, contexts=CONTEXTS)
    width = made.context_width
    contexts = np.random.default_rng(1).choice(5000, (CONTEXTS, width)).astype(np.uint32)
    tuples = known.tuples
    own = type(tuples)(contexts, tuples.context, tuples.tokens, tuples.weights, np.full(CONTEXTS, 0))
    return traced(folder, made, {}, ring, evidence=Evidence(own, known.steps))


def trace_of_an_endpoint(folder: Path) -> Path:
    ring = KeyRing(RING.master_fingerprint, RING.selector, RING.global_key, {})
    known = evidence(make_spec(global_share=1.0), {"global": 0.4}, contexts=CONTEXTS)
    reading = Reading(
        name="the plan's prompts",
        sha256="3" * 64,
        marked=False,
        documents=90,
        tokens=4000,
        contexts=known.contexts,
        prompts_log10_pvalue=-0.2,
    )
    queries = Queries(
        evidence="samples",
        requests=95,
        answers=90,
        prompt_tokens=800,
        completion_tokens=4000,
        ledger_sha256="4" * 64,
        ledger_head="5" * 64,
        stopped="plan finished",
    )
    when = ("2026-02-02T09:00:00+00:00", "2026-02-02T10:30:00+00:00")
    seen: dict[str, Any] = {
        "mode": "api",
        "readings": [reading],
        "references": [],
        "readout": "race",
        "comparisons": [],
        "plan": PlanSeen(sha256="3" * 64, created=when[0], first_query=when[1], seed="s", offered=500),
        "queries": queries,
    }
    return traced(folder, make_spec(global_share=1.0), {}, ring, evidence=known, basis="e-value", **seen)


# -------------------------------------------------------------------------------------------- plans and servers

CHECKS: Known = {
    r"answers\.\d+\.(prompt|tokens)": "what the server sent, and to which prompt, is not kept",
    r"others\..+": "the smallest of them decides, and all of them take their keys",
    r"(temperature|max_tokens)": "how the server was asked, from which nothing on record is computed",
}
BOTH_KEYS: Known = {
    r"answers\.\d+\.log10_pvalue": "both keys have a part in it, which takes the keys",
    r"keys\.\d+\.(tuples|log10_pvalue)": "which tuples are whose takes the keys",
}


def checked(folder: Path, share: float, tenant: str | None) -> Path:
    made = server.spec(global_share=share)
    keys = make_keys(server.MASTER, made, tenant)
    answers = server.marked(server.spec(), "acme", 5, 60)
    special = [Check(name="opting out", status="NOTE", reason="honoured")]
    manner = Manner("http://h/v1", "m", tenant=tenant)
    record = conclude(made, keys, answers, [], special, 1e-6, manner, "chat", "2026-11-26T00:00:00+00:00")
    write_record(folder / "report.json", record)
    return folder / "report.json"


def check_of_one_key(folder: Path) -> Path:
    return checked(folder, 1.0, None)


def check_of_an_account(folder: Path) -> Path:
    return checked(folder, 0.5, "acme")


# ---------------------------------------------------------------------------------------------------------- twins

TWINS: Known = {
    r"queries\.(answers|prompt_tokens|completion_tokens)": "which replies can be used takes the pairs",
    r"law\.controls\.\d+\.pairs": "pairs of which a control says nothing are in no other number",
}
UNSEEN_REPLIES: Known = {r"queries\.requests": "the ledger of replies, which is not here"}
AVERAGED: Known = {r"watermark\.log10_evalue": "in the mean of two e-values the smaller one has no part that is seen"}
UNQUOTED: Known = {r"quotes": "where no pair is shown, whether any might have been"}


def twins_of(make: twins.Maker) -> Callable[[Path], Path]:
    """A test by twins that this code made, as its checks of words ask for."""

    def write(folder: Path) -> Path:
        write_record(folder / "report.json", told_by_this_code(make(folder)))
        return folder / "report.json"

    write.__name__ = make.__name__
    return write


def told_by_this_code(record: Told) -> Told:
    """The same record, as this code would have made it."""
    told = msgspec.structs.replace(record, made=made_by())
    return msgspec.structs.replace(told, how_to_check=in_words(told))


def twins_with_replies(folder: Path) -> TwinRecord:
    shutil.copy(write_ledger(folder / "private", 60), folder)
    return report_of(folder, folder / "private" / LEDGER)


# ----------------------------------------------------------------------------------------------------------- race

RACE: Known = {
    r"arguments\.(read|contexts)": "what was asked for, from which nothing on record is computed",
    r"counts\.(fresh|unheld|cuts)": "which places there are takes the served answers",
    r"reading\.(documents|tokens|contexts|barred)": "the served answers: --inputs compares the file",
    r"hypotheses\.\d+\.hits": "what the key chose takes it",
    r"curve\.\d+\.log10_evalue": "the same; the last one is the verdict's",
    r"lit\.\d+\.(hits|log10_evalue)": "the same; their order is looked at",
    r"queries\.(answers|prompt_tokens|completion_tokens)": "which replies can be used takes the answers",
}
LIT: Known = {r"lit\.\d+\.(hits|log10_evalue)": "the same; their order is looked at"}
MINE_AND_THINE: Known = {
    r"controls\.decoy_log10_evalues\.\d+": "which places are whose is keyed",
    r"hypotheses\.\d+\.log10_evalue": "the same; with the adjusted one it is compared",
}


def race_of(make: Callable[..., RaceRecord]) -> Callable[[Path], Path]:
    """A race readout that this code made, as its checks of words ask for."""

    def write(folder: Path) -> Path:
        write_record(folder / "report.json", told_by_this_code(make(folder, decoys=3)))
        return folder / "report.json"

    write.__name__ = make.__name__
    return write


# ---------------------------------------------------------------------------------------------------------------

REPORTS: list[tuple[Callable[[Path], Path], Known]] = [
    (scan_of_one_key, SCANS),
    (scan_with_accounts, SCANS),
    (scan_with_reference_and_control, SCANS),
    (trace_of_one_key, TRACES),
    (trace_that_leans_away, TRACES),
    (trace_of_accounts, TRACES),
    (trace_of_both, TRACES | SPLIT),
    (trace_of_marked_answers, TRACES),
    (trace_of_an_endpoint, TRACES | ASKED),
    (trace_of_a_format, TRACES | RANKED),
    (refused_trace, TRACES | SPLIT),
    (check_of_one_key, CHECKS),
    (check_of_an_account, CHECKS | BOTH_KEYS),
    (twins_of(twins_with_replies), TWINS),
    (twins_of(twins.account_twins), TWINS | UNSEEN_REPLIES),
    (twins_of(twins.later_twins), TWINS | UNSEEN_REPLIES),
    (twins_of(twins.parting_twins), TWINS | UNSEEN_REPLIES | AVERAGED),
    (twins_of(twins.logprob_twins), TWINS),
    (twins_of(twins.bare_twins), TWINS | UNQUOTED),
    (race_of(race.found_race), RACE | UNSEEN_REPLIES),
    (race_of(race.clean_race), {name: why for name, why in RACE.items() if "hits" not in name} | LIT | UNSEEN_REPLIES),
    (race_of(race.account_race), RACE | UNSEEN_REPLIES),
    (race_of(race.both_race), RACE | MINE_AND_THINE | UNSEEN_REPLIES),
    (race_of(race.weights_race), RACE),
    (race_of(race.tournament_race), RACE | UNSEEN_REPLIES),
    (race_of(race.bare_race), RACE | UNQUOTED),
]


@pytest.fixture
def played_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of edits of a record leave its evidence as it is: the same bets are played once."""
    play, known = bets.bets_on_many, dict[Any, Any]()

    def once(
        differences: Any, signs: Any, covariates: Any = None, *, bias: float = 0.0, combination: Any = None
    ) -> Any:
        given = (differences, signs, covariates, combination)
        arrays = [None if one is None else np.asarray(one) for one in given]
        key = bias, *(None if a is None else (a.shape, a.dtype.str, a.tobytes()) for a in arrays)
        if key not in known:
            known[key] = play(differences, signs, covariates, bias=bias, combination=combination)
        return known[key].copy()

    monkeypatch.setattr(bets, "bets_on_many", once)


@pytest.mark.usefixtures("played_once")
@pytest.mark.parametrize(("make", "known"), REPORTS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_edit_of_a_number_passes_that_others_give(
    make: Callable[[Path], Path], known: Known, tmp_path: Path
) -> None:
    report = make(tmp_path)
    found = verify_report(report)
    assert found.holds, found.failed
    assert next(check.outcome for check in found.checks if check.name == "code") == "ok"
    passed = unseen(report, known)
    assert not passed, "\n".join(passed)


def test_no_edit_of_a_plan_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer contexts are simulated here, which change the numbers and not what follows from what."""
    monkeypatch.setattr(planner, "SIMULATED", 60)
    monkeypatch.setattr(planner, "_QUICK", 30)
    look = Look(evidence="samples", reference="none")
    question = Question(spec=make_spec(global_share=0.5), student=Student(share=0.3, training_tokens=1e5), look=look)
    made: PowerPlan = plan(question)
    write_record(tmp_path / "report.json", made)
    found = verify_report(tmp_path / "report.json")
    assert found.holds, found.failed
    passed = unseen(tmp_path / "report.json", [r"assumed\.spec\.(epoch|vocabulary_size)"])  # change no mark
    assert not passed, "\n".join(passed)


# ------------------------------------------------------------------------------------------- numbers out of all bounds

MONSTERS: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "a detection's p-value": ("detection", ("documents", 8, "decoys", "log10_pvalues", 0), 1e308),
    "a scan's level": ("scan", ("alpha",), 5e-324),
    "a score of a hit": ("scan", ("hits", 0, "expected"), -1e308),
    "a trace's e-value": ("trace", ("hypotheses", 2, "log10_evalue"), -1e308),
    "a file's name": ("trace", ("files", 0, "name"), "x" * 5000),
    "a server's answer": ("server-check", ("keys", 1, "log10_pvalue"), -1e308),
    "no key that must show nothing": ("server-check", ("others",), {}),
    "the e-value of twins": ("twins", ("log10_evalue",), 1e308),
    "a bet's curve": ("twins", ("curve", 3, "log10_evalue"), -1e308),
    "the e-value of a race readout": ("race", ("log10_evalue",), 1e308),
    "a place that is shown": ("race", ("shown", 0, "chance"), 5e-324),
    "hits of a key": ("race", ("hypotheses", 0, "hits"), 1e308),
    "a pair that is shown": ("twins", ("shown", 0, "difference"), 5e-324),
}


@pytest.mark.parametrize("what", MONSTERS)
def test_numbers_that_nothing_can_be_computed_with_are_a_fault_of_the_report(what: str, tmp_path: Path) -> None:
    kind, where, value = MONSTERS[what]
    shutil.copytree(GOLDEN / kind, tmp_path, dirs_exist_ok=True)
    report = tmp_path / "report.json"
    report.write_bytes(changed(json.loads(report.read_bytes()), where, value))
    assert not verify_report(report).holds
    forms = ["--format", "html", "--format", "text", "--format", "markdown"]
    drawn = CliRunner().invoke(main, ["report", "render", str(report), "-o", str(tmp_path / "drawn"), *forms])
    assert drawn.exit_code in (0, 3) and "internal error" not in drawn.output, drawn.output


def test_a_fault_in_drawing_is_not_taken_for_the_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> bytes:
        raise ValueError("a fault of ours")

    monkeypatch.setitem(reports._DRAW, "html", broken)
    done = CliRunner().invoke(main, ["report", "render", str(GOLDEN / "scan" / "report.json"), "-o", str(tmp_path)])
    assert done.exit_code == 1 and "internal error" in done.stderr
