"""From Python: the same numbers and the same reports as the command line's, in results that every test shares."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import detect
from detect.cli.main import main
from detect.race.evidence import EVIDENCE_FILE, read_evidence
from detect.race.plan import save_plan
from detect.records.detection import AwareResult, Record
from detect.records.reading import read_record
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
from detect.report.kinds import KINDS
from detect.result import DetectionResult, Result, result_of
from tests.detect.report.race.examples import found_race, make_plan
from tests.detect.report.twins.ledgers import SECRET as TWIN_KEY
from tests.detect.report.twins.ledgers import write_ledger
from tests.golden.make import HERE as GOLDEN
from tests.golden.make import KEY, SECRET
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.spec import load_spec

TENANTS = ("acme", "zenith")
replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY.partition(":")[2], SECRET.hex())


def detector(**settings: Any) -> detect.Detector:
    given: dict[str, Any] = {"tenants": TENANTS, "decoys": 20} | settings
    return detect.Detector(GOLDEN / "spec.json", KEY, GOLDEN / "tokenizer.json", **given)


def anything(given: Any) -> Any:
    """What no type checker would let through."""
    return given


def texts() -> list[str]:
    return [json.loads(line)["text"] for line in (GOLDEN / "documents.jsonl").read_text("utf-8").splitlines()]


def numbers(record: Record) -> list[dict[str, Any]]:
    """All that a record says of its documents but their names."""
    return [{**msgspec.to_builtins(document), "name": ""} for document in record.documents]


def close(one: Any, other: Any) -> bool:
    """Whether all is the same, but for the last bits of floats (the golden reports are of an older build)."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


def test_texts_tested_together_have_the_numbers_of_the_command() -> None:
    golden = read_record(Record, GOLDEN / "detection" / "report.json")
    result = detector().test_all(texts())
    assert close(numbers(result.record), numbers(golden))
    assert result.found and result.points_to == ["global", "tenant:acme"]


def test_a_detector_gives_a_text_the_same_numbers_whatever_it_tested_before() -> None:
    prepared = detector()
    first, second = texts()[:2]
    alone = [numbers(detector().test(text).record) for text in (first, second)]
    assert [numbers(prepared.test(text).record) for text in (first, second, first)] == [*alone, alone[0]]


def test_one_text_pays_for_no_other() -> None:
    (document,) = detector().test(texts()[0]).documents
    assert document.log10_pvalue_corpus == document.log10_pvalue
    together = detector().test_all(texts()).documents[0]
    assert together.log10_pvalue == document.log10_pvalue
    assert together.log10_pvalue_corpus is not None and document.log10_pvalue is not None
    assert together.log10_pvalue_corpus > document.log10_pvalue


def test_token_ids_are_tested_like_their_text() -> None:
    from watermark.models.tokenizer import load_tokenizer

    text = texts()[0]
    ids = load_tokenizer(GOLDEN / "tokenizer.json").encode(text, add_special_tokens=False).ids
    for given in (ids, np.array(ids, dtype=np.uint32)):
        assert detector().test(given).log10_pvalue == detector().test(text).log10_pvalue


def test_a_known_prompt_makes_the_first_tokens_testable() -> None:
    ids = list(range(40, 60))
    alone, after = (detector().test(ids, prompt=prompt).documents[0] for prompt in (None, [7, 8, 9]))
    assert after.tuples == alone.tuples + 2 and after.prompt_tokens == 3


def test_a_ring_of_keys_serves_as_well_and_names_its_own_tenants() -> None:
    spec = load_spec(GOLDEN / "spec.json")
    ring = KeyRing.from_master(SecretKey(SECRET), spec.epoch, tenants=TENANTS)
    same = detect.Detector(spec, ring, GOLDEN / "tokenizer.json", decoys=20).test(texts()[0])
    assert same.log10_pvalue == detector().test(texts()[0]).log10_pvalue
    with pytest.raises(DyetraceError, match="names its own tenants"):
        detect.Detector(spec, ring, GOLDEN / "tokenizer.json", tenants=TENANTS)


@pytest.mark.parametrize("quotes", [True, False])
def test_what_is_saved_verifies_and_recomputes(tmp_path: Path, quotes: bool) -> None:
    result = detector(quotes=quotes).test_all(texts())
    report = result.save(tmp_path / "saved")
    assert run("report", "verify", report).exit_code == 0
    assert (report.parent / "documents.jsonl").exists() == quotes
    page = (report.parent / "report.html").read_text("utf-8")
    assert ("Rivers" in page or texts()[1][:20] in page) <= quotes
    again = run("recompute", report, "--key", KEY, "--tokenizer", GOLDEN / "tokenizer.json")
    assert again.exit_code == (0 if quotes else 2), again.output  # the texts are nowhere: one line says so
    read = detect.read_report(report.parent)
    assert isinstance(read, DetectionResult)
    assert read.record == result.record and read.log10_pvalue == result.log10_pvalue


def test_saving_replaces_its_own_files_and_nobody_elses(tmp_path: Path) -> None:
    first, second = detector().test(texts()[0]), detector().test(texts()[2])
    first.save(tmp_path / "own")
    second.save(tmp_path / "own")
    assert detect.read_report(tmp_path / "own").record == second.record
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "documents.jsonl").write_text("mine\n")
    with pytest.raises(DyetraceError, match=r"documents\.jsonl is there already"):
        first.save(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["documents.jsonl"]
    assert (tmp_path / "other" / "documents.jsonl").read_text() == "mine\n"


def test_a_folder_of_another_kind_is_not_saved_over(tmp_path: Path) -> None:
    detect.read_report(GOLDEN / "scan").save(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DyetraceError, match="holds the report of a scan"):
        detector().test(texts()[0]).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (lambda: detector().test_all([]), "there is no text to test"),
        (lambda: detector().test_all(texts()[0]), "this is one text"),
        (lambda: detector().test([5, 2**32]), "outside 0 .. 2"),
        (lambda: detector().test(anything([5, 6.5])), "whole numbers"),
        (lambda: detector().test(anything(["5"])), "whole numbers"),
        (lambda: detector().test(anything(b"bytes")), "a text is a string"),
        (lambda: detector().test(anything(None)), "a text is a string"),
        (lambda: detector().test([5], prompt=anything("before")), "whole numbers"),
        (lambda: detector(tenants="acme"), "tenants are several names"),
        (lambda: detect.Detector(GOLDEN / "spec.json", anything(SECRET), GOLDEN), "by where it is"),
        (lambda: detector().test([5, 99_999]), "its ids come from another tokenizer"),
        (lambda: detector().test("half of a pair: \ud83d"), "no Unicode"),
        (lambda: detect.Detector(GOLDEN / "none.json", KEY, GOLDEN / "tokenizer.json"), "none.json"),
        (lambda: detect.Detector(GOLDEN / "spec.json", "env:NOBODY_SET_IT", GOLDEN), "NOBODY_SET_IT"),
        (lambda: detector(alpha=1), "alpha"),
        (lambda: detector(decoy_seed=5), "Expected `str`, got `int`"),
        (lambda: detector(quotes="no"), "Expected `bool`, got `str`"),
        (lambda: detect.read_report(GOLDEN / "none"), "cannot read"),
        (lambda: detect.read_report(GOLDEN / "spec.json"), "format"),
    ],
)
def test_bad_input_is_one_line(given: Any, line: str) -> None:
    with pytest.raises(DyetraceError, match=line) as caught:
        given()
    assert len(str(caught.value).splitlines()) == 1


def test_a_text_with_nothing_to_test_has_no_answer() -> None:
    result = detector().test("")
    assert result.log10_pvalue is None and result.found is False and "empty" in str(result.refused)
    assert repr(result) == "<DetectionResult found=False refused documents=1>"


def golden_results() -> list[Result[Any]]:
    return [detect.read_report(path) for path in sorted(GOLDEN.glob("*/report.json"))]


def test_every_kind_of_report_is_a_result() -> None:
    kinds = {type(result.record) for result in golden_results()}
    assert kinds == {kind.record for kind in KINDS}


@pytest.mark.parametrize("result", golden_results(), ids=lambda result: type(result).__name__)
def test_a_result_says_the_same_in_every_form(result: Result[Any], tmp_path: Path) -> None:
    assert isinstance(result.found, bool)
    assert result.log10_pvalue is None or result.log10_pvalue <= 0
    assert len(repr(result)) < 120 and type(result).__name__ in repr(result)
    assert SECRET.hex() not in repr(result)
    html = result._repr_html_()
    assert not re.search(r"<(script|link|img|iframe)|(src|href)=.http", html)  # it loads nothing
    assert result.summary().isascii() and len(result.summary().splitlines()) > 5
    frame = result.to_frame()
    assert len(frame) == len(result.rows()) > 0
    again = detect.read_report(result.save(tmp_path))
    assert again.record == result.record
    assert run("report", "verify", tmp_path / "report.json").exit_code == 0


def test_a_table_needs_no_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import pyarrow

    monkeypatch.setitem(sys.modules, "pandas", None)
    table = detect.read_report(GOLDEN / "detection").to_frame()
    assert isinstance(table, pyarrow.Table) and table.num_rows == 12


def test_found_is_the_p_value_at_the_level() -> None:
    """With a model too: two tests share the level, and both pay for the number of documents."""
    record = read_record(Record, GOLDEN / "detection" / "report.json")
    from detect.document.detection import adjust

    for log10_p, log10_aware in ((-7.0, 0.0), (-6.1, 0.0), (-6.1, -6.0), (0.0, -6.4), (-5.0, -6.29), (-1.0, -1.0)):
        document = record.documents[0]
        aware = AwareResult(model="m", hypotheses=[], log10_pvalue=log10_aware, decoy_log10_evalues=[])
        one = replace(document, log10_pvalue=log10_p, hypotheses=[], aware=aware)
        other = replace(one, log10_pvalue=0.0, aware=replace(aware, log10_pvalue=0.0))
        for documents in ([one], [one, other, other]):
            result = result_of(replace(record, documents=adjust(documents, record.alpha)))
            assert result.log10_pvalue is not None
            assert result.found == (result.log10_pvalue <= math.log10(record.alpha))
            paid = min(log10_p, log10_aware) + math.log10(2 * len(documents))
            assert result.log10_pvalue == pytest.approx(min(0.0, paid))


def test_a_scan_from_python_is_the_scan_of_the_command(tmp_path: Path) -> None:
    write_key_file(tmp_path / "owner.key", SecretKey(SECRET))  # workers that other tests started have no new settings
    source = f"file:{tmp_path / 'owner.key'}"
    golden = read_record(ScanRecord, GOLDEN / "scan" / "report.json")
    result = detect.scan(
        GOLDEN / "documents.jsonl",
        GOLDEN / "spec.json",
        source,
        tmp_path / "scanned",
        tokenizer=GOLDEN / "tokenizer.json",
        settings=detect.ScanSettings(tenants=TENANTS, decoys=20),
        reference=[GOLDEN / "answers.jsonl"],
        workers=1,
    )
    for name in ("hypotheses", "shares", "histogram", "discoveries", "log10_pvalue", "found"):
        assert close(*(msgspec.to_builtins(getattr(record, name)) for record in (result.record, golden))), name
    assert [hit.ordinal for hit in result.hits] == [hit.ordinal for hit in golden.hits]
    assert len(result.to_frame()) == 12
    assert (tmp_path / "scanned" / "report.html").exists()
    assert run("report", "verify", tmp_path / "scanned" / "report.json").exit_code == 0
    again = run(
        "recompute", tmp_path / "scanned" / "report.json", "--key", source, "--tokenizer", GOLDEN / "tokenizer.json"
    )
    assert again.exit_code == 0, again.output


def test_a_trace_from_python_is_the_trace_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tests.innocents.world import network_of, tokenizer_of

    golden = read_record(TraceRecord, GOLDEN / "trace" / "report.json")
    monkeypatch.chdir(tmp_path)
    tokenizer: Any = tokenizer_of()
    network_of(tokenizer, seed=1).save_pretrained("model")
    tokenizer.save_pretrained("model")
    job = detect.WeightsJob(
        student=Path("model"), texts=[str(GOLDEN / "answers.jsonl")], taken="all", dtype="float32", contexts=200
    )
    result = detect.trace_weights(job, GOLDEN / "spec.json", KEY, "model", "traced", tenants=TENANTS)
    assert [(h.key, h.contexts, h.tuples) for h in result.record.hypotheses] == [
        (h.key, h.contexts, h.tuples) for h in golden.hypotheses
    ]
    assert result.found == golden.found
    assert {"report.json", "report.html", "evidence.npz"} <= {path.name for path in Path("traced").iterdir()}
    assert run("report", "verify", "traced/report.json").exit_code == 0
    assert run("recompute", "traced/report.json", "--key", KEY).exit_code == 0


def test_a_test_by_twins_from_python_is_a_report_as_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.innocents.world import network_of, tokenizer_of

    monkeypatch.chdir(tmp_path)
    tokenizer: Any = tokenizer_of()
    network_of(tokenizer, seed=1).save_pretrained("model")
    tokenizer.save_pretrained("model")
    ledger = write_ledger(tmp_path, 30)
    write_key_file(tmp_path / "twin.key", TWIN_KEY)
    how: dict[str, Any] = {"tenants": ["acme", "zenith"], "dtype": "float32"}
    result = detect.trace_twins("model", ledger, "file:twin.key", "tested", **how)
    assert isinstance(result, detect.TwinResult) and not result.found and result.refused is None
    assert {"report.json", "report.html", "twins.npz", "plan.json"} <= {path.name for path in Path("tested").iterdir()}
    assert run("report", "verify", "tested/report.json").exit_code == 0
    again = run("recompute", "tested/report.json", "--key", "file:twin.key")
    assert again.exit_code == 0 and "every number the same" in again.output, again.output
    assert len(result.to_frame()) == result.record.pairs.asked > 10
    assert (
        detect.trace_twins("model", ledger, "file:twin.key", "tested", **how).record.measures == result.record.measures
    )
    with pytest.raises(DyetraceError, match="needs the suspect's name"):
        detect.trace_twins("http://127.0.0.1:9/v1", ledger, "file:twin.key", "asked")


def test_a_race_readout_from_python_is_a_report_as_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.innocents.world import network_of, tokenizer_of

    monkeypatch.chdir(tmp_path)
    tokenizer: Any = tokenizer_of()
    for name, seed in (("owner", 1), ("suspect", 2)):
        network_of(tokenizer, seed=seed).save_pretrained(name)
        tokenizer.save_pretrained(name)
    job = detect.RaceJob(
        suspect="suspect",
        read=str(GOLDEN / "answers.jsonl"),
        owner_model="owner",  # type: ignore[arg-type]
        taken="all",
        decoys=10,
        dtype="float32",
    )
    result = detect.trace_race(job, GOLDEN / "spec.json", KEY, "owner", "read", tenants=TENANTS)
    assert isinstance(result, detect.RaceResult) and not result.found and result.refused is None
    assert result.log10_pvalue is not None and result.record.hypotheses
    assert {"report.json", "report.html", "race.npz"} <= {path.name for path in Path("read").iterdir()}
    verified = run("report", "verify", "read/report.json")
    assert verified.exit_code == 0, verified.output
    again = run("recompute", "read/report.json", "--key", KEY)
    assert again.exit_code == 0 and "every number the same" in again.output, again.output
    frame = result.to_frame()
    assert len(frame) == result.record.counts.asked > 100
    spoken = frame[frame["said"].notna()]
    assert float(spoken["chance"].sum()) == pytest.approx(sum(h.expected for h in result.record.hypotheses))
    saved = detect.read_report(result.save("saved").parent)
    assert repr(saved) == repr(result) and "RaceResult found=False" in repr(saved)
    assert "where chance gives" in result.summary()


def test_a_race_readout_of_an_endpoint_goes_on_by_its_own_plan_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = detect.RaceJob(suspect="http://127.0.0.1:9/v1", read="served.jsonl", owner_model=Path("owner"))
    tokenizer = GOLDEN / "tokenizer.json"
    with pytest.raises(DyetraceError, match="needs the suspect's name"):
        detect.trace_race(job, GOLDEN / "spec.json", KEY, tokenizer, "asked")
    assert not Path("asked").exists()
    named = dataclasses.replace(job, model="suspect-mini")
    record = found_race(tmp_path / "another")
    plan, chances = make_plan(record, read_evidence(tmp_path / "another" / EVIDENCE_FILE))
    save_plan(Path("another/plan.json"), replace(plan, arguments=named.arguments), chances)
    with pytest.raises(DyetraceError, match="is a plan for spec"):
        detect.trace_race(named, GOLDEN / "spec.json", KEY, tokenizer, "another")
    with pytest.raises(DyetraceError, match="is the plan of another job"):
        detect.trace_race(dataclasses.replace(named, spread=0.123), GOLDEN / "spec.json", KEY, tokenizer, "another")


def run(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])
