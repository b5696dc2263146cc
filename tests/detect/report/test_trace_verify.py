"""Verification of a trace's report without a key, and the commands that take one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.records.how_to_check import in_words
from detect.records.made import made_by
from detect.records.reading import write_record
from detect.records.scan import FileHash
from detect.records.trace import TraceRecord
from detect.records.trace_assumptions import assumptions
from detect.report.signature import public_key_path, sign, write_signing_key
from detect.report.verification import verify_report
from detect.student.verdict.conclude import conclude
from detect.student.verdict.evidence import Basis, TraceSettings, encode_evidence
from detect.student.verdict.hypothesis import Sided
from detect.student.verdict.recompute import recompute_trace
from tests.detect.report import trace_examples as examples
from tests.detect.report.examples import make_spec
from watermark.keys import KeyRing, SecretKey

replace = msgspec.structs.replace


@pytest.mark.parametrize("kind", examples.KINDS)
def test_untouched_reports_hold(kind: str, tmp_path: Path) -> None:
    examples.KINDS[kind](tmp_path)
    found = verify_report(tmp_path / "report.json")
    assert found.holds, found.failed
    left = {"signature", "code", "inputs", "totals", *(["ledger"] if kind == "api" else [])}
    assert {c.name for c in found.checks if c.outcome == "not done"} == left


@pytest.mark.parametrize(
    ("basis", "sided", "share"), [("p-value", "upper", 0.5), ("p-value", "two-sided", 1.0), ("e-value", "upper", 0.0)]
)
def test_what_a_trace_concludes_under_real_keys_holds(basis: Basis, sided: Sided, share: float, tmp_path: Path) -> None:
    key = SecretKey(b"a key that everybody knows......")
    ring = KeyRing.from_master(key, tenants=("acme", "zenith") if share < 1 else ())
    spec = make_spec(scheme="green_list", global_share=share, key_fingerprint=key.fingerprint)
    known = examples.make_evidence().until(40)
    conclusion = conclude(known, spec, ring, basis, TraceSettings(alpha=1e-3, sided=sided, decoy_count=5))
    data = encode_evidence(known)
    clean = examples.clean_trace(tmp_path, commitment=None, comparisons=[])
    marked = basis == "e-value"
    record = replace(
        clean,
        readings=[replace(reading, contexts=known.contexts, marked=marked) for reading in clean.readings],
        **{name: getattr(conclusion, name) for name in conclusion.__dataclass_fields__},
        spec=spec,
        spec_id=spec.spec_id,
        key_fingerprint=key.fingerprint,
        alpha=1e-3,
        basis=basis,
        sided=sided,
        contexts=known.contexts,
        files=[FileHash(name="evidence.npz", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
    )
    (tmp_path / "evidence.npz").write_bytes(data)
    write_record(tmp_path / "report.json", record)
    found = verify_report(tmp_path / "report.json")
    assert found.holds, found.failed
    assert recompute_trace(record, ring, tmp_path) == []


def changed_first(record: TraceRecord, **changes: Any) -> TraceRecord:
    return replace(record, hypotheses=[replace(record.hypotheses[0], **changes), *record.hypotheses[1:]])


def wrong(record: TraceRecord) -> dict[str, tuple[str, TraceRecord]]:
    """For each name the check that must fail, and a record that is wrong."""
    first = record.hypotheses[0]
    return {
        "tested": ("keys", changed_first(record, log10_pvalue_tested=first.log10_pvalue - 1)),
        "adjusted": ("keys", changed_first(record, log10_pvalue_adjusted=first.log10_pvalue_adjusted - 1)),
        "tails": ("keys", changed_first(record, log10_pvalue_lower=-4.0)),
        "upper tail": ("keys", changed_first(record, log10_pvalue=first.log10_pvalue - 0.1)),
        "e-value": ("answer", changed_first(record, log10_evalue=first.log10_evalue + 1)),
        "mean e-value": ("answer", replace(record, log10_evalue=record.log10_evalue + 1)),
        "p-value": ("answer", replace(record, log10_pvalue=-7.0)),
        "found": ("answer", replace(record, found=False)),
        "level": ("answer", replace(record, arguments={"alpha": 1e-3})),
        "unnamed": ("identification", replace(record, identified=[])),
        "named": ("identification", replace(record, identified=["acme", "zenith"])),
        "decoys": (
            "controls",
            replace(record, controls=replace(record.controls, decoy_log10_pvalues=[-9.0] * 100)),
        ),
        "contradiction": ("controls", replace(record, controls=examples.make_controls(broken=True))),
        "spec id": ("spec", replace(record, spec_id="dt1-other")),
        "fingerprint": ("spec", replace(record, key_fingerprint="f" * 32)),
        "no evidence": ("files", replace(record, files=[])),
    }


def test_every_wrong_number_is_found_by_its_check(tmp_path: Path) -> None:
    record = examples.found_trace(tmp_path)
    for name, (check, broken) in wrong(record).items():
        write_record(tmp_path / "report.json", broken)
        failed = [c.name for c in verify_report(tmp_path / "report.json").failed]
        assert check in failed, (name, failed)


def test_numbers_that_no_total_gives_are_found_without_the_evidence(tmp_path: Path) -> None:
    record = examples.found_trace(tmp_path)
    first = record.hypotheses[0]
    deviation = changed_first(record, total=round(first.expected + 900 * first.sd), log10_pvalue=-1.0)
    against = changed_first(
        record, total=round(first.expected - 900 * first.sd), log10_pvalue=0.0, log10_pvalue_lower=-1.0
    )
    bet = changed_first(record, log10_evalue=-first.log10_pvalue + 1)
    for broken, said in ((deviation, "too large"), (against, "too large"), (bet, "larger than the inverse")):
        write_record(tmp_path / "report.json", broken)
        failed = {c.name: c.line for c in verify_report(tmp_path / "report.json").failed}
        assert said in failed["keys"]


def single(record: TraceRecord) -> dict[str, TraceRecord]:
    """Records of one key whose numbers contradict the evidence, and nothing else in the record."""
    first = record.hypotheses[0]
    smaller = first.log10_pvalue - 5
    lucky = changed_first(record, log10_pvalue=smaller, log10_pvalue_tested=smaller, log10_pvalue_adjusted=smaller)
    return {
        "total": changed_first(record, total=first.total + round(first.sd)),
        "p-value": replace(lucky, log10_pvalue=smaller),
        "e-value": replace(changed_first(record, log10_evalue=first.log10_evalue - 3),
                           log10_evalue=first.log10_evalue - 3),
        "mean": changed_first(record, expected=first.expected + 0.01 * first.sd),
        "deviation": changed_first(record, sd=first.sd * 1.01),
        "words": changed_first(record, tuples=first.tuples + 1),
        "contexts": replace(record, contexts=record.contexts + 1),
        "curve": replace(record, curve=record.curve[:-1]),
    }  # fmt: skip


def test_one_keys_total_gives_its_tails_without_the_key(tmp_path: Path) -> None:
    record = examples.make_trace(tmp_path, {"global": 9.0})
    found = verify_report(tmp_path / "report.json")
    line = next(c.line for c in found.checks if c.name == "evidence")
    assert found.holds and "which takes no key" in line
    for name, broken in single(record).items():
        write_record(tmp_path / "report.json", broken)
        assert "evidence" in [c.name for c in verify_report(tmp_path / "report.json").failed], name


def test_keys_that_share_contexts_have_all_of_them_together(tmp_path: Path) -> None:
    record = examples.found_trace(tmp_path)
    first, *tenants = record.hypotheses
    fewer = changed_first(record, contexts=first.contexts - 1)
    spread = replace(record, hypotheses=[first, *(replace(h, sd=h.sd * 1.1) for h in tenants)])
    apart = replace(record, hypotheses=[first, replace(tenants[0], tuples=1), *tenants[1:]])
    for broken in (fewer, spread, apart):
        write_record(tmp_path / "report.json", broken)
        assert "evidence" in [c.name for c in verify_report(tmp_path / "report.json").failed]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_key_that_marks_nothing_under_the_spec_cannot_have_been_tested(share: float, tmp_path: Path) -> None:
    record = examples.clean_trace(tmp_path)
    assert {h.key for h in record.hypotheses} == {"global", "tenant:acme"}
    spec = replace(record.spec, global_share=share)
    write_record(tmp_path / "report.json", replace(record, spec=spec, spec_id=spec.spec_id))
    failed = {check.name: check.line for check in verify_report(tmp_path / "report.json").failed}
    assert failed["evidence"].startswith("keys that were tested: ['global', 'tenant:acme'] on record")


def test_no_key_that_marks_anything_is_found_as_well(tmp_path: Path) -> None:
    record = examples.clean_trace(tmp_path)
    spec = replace(record.spec, global_share=0.0)
    alone = replace(record, hypotheses=record.hypotheses[:1], spec=spec, spec_id=spec.spec_id)
    assert [h.key for h in alone.hypotheses] == ["global"]
    write_record(tmp_path / "report.json", alone)
    assert "evidence" in {check.name for check in verify_report(tmp_path / "report.json").failed}


def test_evidence_of_another_kind_is_found(tmp_path: Path) -> None:
    record = examples.clean_trace(tmp_path)
    data = b"PK not an evidence file"
    (tmp_path / "evidence.npz").write_bytes(data)
    file = replace(record.files[0], sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    write_record(tmp_path / "report.json", replace(record, files=[file]))
    failed = verify_report(tmp_path / "report.json").failed
    assert [c.name for c in failed] == ["evidence"] and "evidence.npz" in failed[0].line


def test_forecasts_that_do_not_follow_are_found(tmp_path: Path) -> None:
    record = examples.found_trace(tmp_path)
    power, readout = record.power, record.comparisons[0]
    broken = [
        replace(record, power=replace(power, detectable_z_per_context=power.detectable_z_per_context / 2)),
        replace(record, power=replace(power, observed_z_per_context=power.observed_z_per_context * 2)),
        replace(record, power=replace(power, contexts_needed=None)),
        replace(record, comparisons=[replace(readout, contexts_needed=1000), *record.comparisons[1:]]),
        replace(record, comparisons=[replace(readout, z=-1.0), *record.comparisons[1:]]),
    ]
    for one in broken:
        write_record(tmp_path / "report.json", one)
        assert [c.name for c in verify_report(tmp_path / "report.json").failed] == ["forecasts"]


def test_plans_made_after_the_first_query_and_peeking_at_pvalues_are_found(tmp_path: Path) -> None:
    record = examples.api_trace(tmp_path)
    assert record.plan is not None
    late = replace(record, plan=replace(record.plan, created="2026-02-02T10:31:00+00:00"))
    odd = replace(record, plan=replace(record.plan, created="yesterday"))
    peeked = replace(record, basis="p-value")
    for broken, said in ((late, "after the first query"), (odd, "must be times"), (peeked, "forbids looking")):
        write_record(tmp_path / "report.json", broken)
        failed = {c.name: c.line for c in verify_report(tmp_path / "report.json").failed}
        assert said in failed["plan"]


def test_commitment_younger_than_the_trace_is_found(tmp_path: Path) -> None:
    record = examples.clean_trace(tmp_path)
    assert record.commitment is not None
    young = replace(record.commitment, created="2026-02-04T00:00:00+00:00")
    write_record(tmp_path / "report.json", replace(record, commitment=young))
    failed = verify_report(tmp_path / "report.json").failed
    assert [c.name for c in failed] == ["spec"] and "younger" in failed[0].line


def test_prompts_of_a_plan_are_no_file_to_compare(tmp_path: Path) -> None:
    examples.api_trace(tmp_path / "made")
    (tmp_path / "texts").mkdir()
    found = verify_report(tmp_path / "made" / "report.json", inputs=tmp_path / "texts")
    assert found.holds, found.failed


@pytest.mark.parametrize("kind", ["turned", "marked reading", "api"])
def test_tested_pvalue_is_that_of_its_basis_and_sides(kind: str, tmp_path: Path) -> None:
    record = examples.KINDS[kind](tmp_path)
    stronger = record.hypotheses[0].log10_pvalue_tested - 1
    write_record(tmp_path / "report.json", changed_first(record, log10_pvalue_tested=stronger))
    assert "keys" in [c.name for c in verify_report(tmp_path / "report.json").failed]


def test_what_is_said_of_all_accounts_must_follow_from_their_pvalue(tmp_path: Path) -> None:
    record = examples.together_trace(tmp_path)
    weak = replace(record, together=-6.2, identification=record.identification.replace("-8.6", "-6.2"))
    silent = replace(record, identification="Not identified: none of the 3 accounts tested left evidence.")
    pair = replace(record, identification="No single account is identified: it is acme or zenith.")
    named = replace(record, identified=["acme"])
    for broken in (weak, silent, pair, named):
        write_record(tmp_path / "report.json", broken)
        assert "identification" in [c.name for c in verify_report(tmp_path / "report.json").failed]


def test_group_of_an_older_report_whose_choice_was_not_paid_for_is_found(tmp_path: Path) -> None:
    record = examples.old_group_trace(tmp_path)
    group = replace(record.coalitions[0], log10_pvalue_adjusted=-12.0)
    write_record(tmp_path / "report.json", replace(record, coalitions=[group]))
    assert "identification" in [c.name for c in verify_report(tmp_path / "report.json").failed]


def test_changed_evidence_is_found(tmp_path: Path) -> None:
    examples.clean_trace(tmp_path)
    evidence = tmp_path / "evidence.npz"
    evidence.write_bytes(evidence.read_bytes() + b"x")
    found = verify_report(tmp_path / "report.json")
    assert [c.name for c in found.failed] == ["files"] and "evidence.npz" in found.failed[0].line
    evidence.unlink()
    assert "evidence.npz is missing" in verify_report(tmp_path / "report.json").failed[0].line


def test_texts_are_compared_where_their_folder_is_given(tmp_path: Path) -> None:
    record = examples.clean_trace(tmp_path / "report", served=None)
    texts = tmp_path / "texts"
    (texts / "prompts").mkdir(parents=True)
    (texts / "prompts" / "unmarked.jsonl").write_bytes(b"{}\n")
    path = tmp_path / "report" / "report.json"
    assert "inputs" in [c.name for c in verify_report(path, inputs=texts).failed]
    reading = replace(record.readings[0], sha256=hashlib.sha256(b"{}\n").hexdigest())
    write_record(path, replace(record, readings=[reading]))
    found = verify_report(path, inputs=texts)
    assert found.holds and "inputs" in [c.name for c in found.checks if c.outcome == "ok"]


def test_changed_assumptions_of_a_trace_are_seen_by_the_code_that_wrote_them(tmp_path: Path) -> None:
    record = replace(
        examples.clean_trace(tmp_path),
        made=made_by(),
        identification="Not identified: none of the 1 accounts tested left evidence.",
        readings=[replace(reading, texts_log10_pvalue=-0.3) for reading in examples.clean_trace(tmp_path).readings],
    )
    record = replace(record, assumptions=assumptions(record), how_to_check=in_words(record))
    write_record(tmp_path / "report.json", record)
    assert verify_report(tmp_path / "report.json").holds
    first, *others = record.assumptions
    write_record(tmp_path / "report.json", replace(record, assumptions=[replace(first, checked=True), *others]))
    assert [check.name for check in verify_report(tmp_path / "report.json").failed] == ["assumptions"]


def test_signature_of_a_trace_is_checked(tmp_path: Path) -> None:
    record = examples.api_trace(tmp_path)
    path = tmp_path / "report.json"
    write_signing_key(tmp_path / "owner.pem")
    sign(path, f"file:{tmp_path / 'owner.pem'}")
    public = public_key_path(tmp_path / "owner.pem")
    assert verify_report(path, public_key=public).holds
    write_record(path, replace(record, student=replace(record.student, name="another model")))
    assert [c.name for c in verify_report(path, public_key=public).failed] == ["signature"]


def test_commands_take_a_trace(tmp_path: Path) -> None:
    examples.found_trace(tmp_path)
    path = str(tmp_path / "report.json")
    runner = CliRunner()
    forms = ["--format", "html", "--format", "pdf", "--format", "text"]
    drawn = runner.invoke(main, ["report", "render", path, "-o", str(tmp_path / "out"), *forms])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "out" / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF-1.7")
    assert "The mark was found in this model." in (tmp_path / "out" / "report.txt").read_text("utf-8")
    write_signing_key(tmp_path / "owner.pem")
    signed = runner.invoke(main, ["report", "sign", path, "--signing-key", f"file:{tmp_path / 'owner.pem'}"])
    assert signed.exit_code == 0, signed.output
    public = str(public_key_path(tmp_path / "owner.pem"))
    checked = runner.invoke(main, ["report", "verify", path, "--public-key", public])
    assert checked.exit_code == 0, checked.output
    assert "ok       keys: the tested and adjusted p-values of 4 keys" in checked.output
