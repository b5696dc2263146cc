"""Detections of many accounts: the numbers of a test of each key by itself, in a report that stays small."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.document.blind import WHOLE_FAMILY, Family, blind_test, law_tails
from detect.document.detection import KEPT, Settings, detect
from detect.document.pointing import blind_and_aware
from detect.keyed.batch import Batch
from detect.keyed.decoys import accounts_of_decoys, decoy_rings
from detect.keyed.owners import candidates
from detect.laws.multiplicity import holm_log10, sidak_log10
from detect.readers.suspects import Suspect
from detect.records.detection import Input, Record
from detect.records.reading import encode_record, write_record
from detect.text.distinct import Tuples, distinct_tuples
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from watermark.keys import KeyRing, write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec, write_spec

MANY = tuple(f"account-{number}" for number in range(WHOLE_FAMILY + 20))
SCHEMES = ["gumbel", "green_list", "tournament"]


def texts() -> list[Tuples]:
    """Of many lengths, none and one of a token among them, with and without a prompt; some tokens stand twice."""
    rng = np.random.default_rng(11)
    found = []
    for number, length in enumerate([40, 0, 1, 2, 3, 300, 7, 1200]):
        ids = rng.integers(0, 200, length).astype(np.uint32)
        prompt = rng.integers(0, 200, number % 4).astype(np.uint32) if number % 2 else None
        found.append(distinct_tuples(ids, 2, prompt))
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_many_at_once_give_the_numbers_of_each_key_and_document_by_itself(scheme: str, share: float) -> None:
    made = spec(scheme=scheme, global_share=share)
    accounts = () if share == 1 else ("acme", "zenith", "nadir")
    ring = KeyRing.from_master(SECRET, 0, accounts)
    parts = texts()
    for tuples, found in zip(parts, Family(made, ring, decoy_seed="d", decoy_count=9).test(parts), strict=True):
        families = []
        for one in (ring, *decoy_rings("d", 9, made, ring)):
            family = []
            for candidate in candidates(made, one, tuples):
                keys = [subkey(candidate.key, index) for index in range(made.subkeys)]
                ns, sums, log10_ps = law_tails(made.build_scheme(), keys, candidate.tuples)
                family.append((str(candidate.name), ns.tolist(), sums.tolist(), log10_ps))
            families.append(family)
        for h, (name, ns, sums, log10_ps) in zip(found.hypotheses, families[0], strict=True):
            assert (h.key, [h.tuples] * len(ns)) == (name, ns)
            assert [s.total for s in h.subkeys] == sums
            assert [s.log10_pvalue for s in h.subkeys] == pytest.approx(log10_ps, rel=1e-10, abs=1e-12)
        paid = [min(holm_log10([sidak_log10(log10_ps) for *_, log10_ps in family])) for family in families]
        assert found.log10_pvalue == pytest.approx(paid[0], rel=1e-10, abs=1e-12)
        if len(tuples):
            assert found.decoys is not None
            assert found.decoys.log10_pvalues == pytest.approx(paid[1:], rel=1e-10, abs=1e-12)
        else:
            assert found.decoys is None and found.refused is not None


@pytest.mark.parametrize("size", [1, 3, 8])
def test_how_many_are_tested_at_a_time_changes_no_number(size: int) -> None:
    ring = KeyRing.from_master(SECRET, 0, MANY)
    family = Family(spec(global_share=0.5), ring, decoy_seed="d", decoy_count=5, decoy_accounts=1, keep=KEPT)
    parts = texts()
    whole = family.test(parts)
    cut = [one for start in range(0, len(parts), size) for one in family.test(parts[start : start + size])]
    for a, b in zip(whole, cut, strict=True):
        assert (a.hypotheses, a.log10_pvalue, a.decoys) == (b.hypotheses, b.log10_pvalue, b.decoys)
        assert a.sums is not None and b.sums is not None and np.array_equal(a.sums, b.sums)


def test_no_context_reaches_into_the_document_before() -> None:
    parts = texts()
    batch = Batch.of(parts)
    assert np.array_equal(batch.tuples.contexts, np.concatenate([part.contexts for part in parts]))
    assert np.array_equal(batch.tuples.tokens, np.concatenate([part.tokens for part in parts]))
    assert np.array_equal(np.bincount(batch.rows, minlength=len(parts)), [len(part) for part in parts])


def test_a_large_family_keeps_its_strongest_keys_with_the_numbers_of_all() -> None:
    """Whatever is left out of a document changes nothing of what is kept."""
    ring = KeyRing.from_master(SECRET, 0, MANY)
    made = spec(global_share=0.5)
    for tuples in texts():
        everything = blind_test(made, ring, tuples, decoy_count=0)
        (kept,) = Family(made, ring, decoy_seed="d", decoy_count=0, keep=KEPT, log10_alpha=-6.0).test([tuples])
        by_name = {h.key: h for h in everything.hypotheses}
        assert len(kept.hypotheses) == KEPT and kept.keys == len(by_name) == len(MANY) + 1
        assert kept.log10_pvalue == pytest.approx(everything.log10_pvalue, rel=1e-12)
        for h in kept.hypotheses:
            whole = by_name[h.key]
            assert [s.total for s in h.subkeys] == [s.total for s in whole.subkeys]
            assert h.log10_pvalue_adjusted == pytest.approx(whole.log10_pvalue_adjusted, rel=1e-12, abs=1e-15)
        weakest = max(h.log10_pvalue for h in kept.hypotheses)
        names = {h.key for h in kept.hypotheses}
        assert all(h.log10_pvalue >= weakest - 1e-12 for h in everything.hypotheses if h.key not in names)
        assert [h.key for h in kept.hypotheses] == [name for name in by_name if name in names]


def test_every_key_that_could_be_named_is_kept() -> None:
    """More accounts than a document keeps left their mark in it: all of them are on record, and are pointed to."""
    made, guilty = spec(global_share=0.0), [f"account-{number}" for number in range(KEPT + 3)]
    rows = [ids for name in guilty for ids in documents(1, 400, 5, made, name)]
    ids = np.concatenate([np.asarray(row, dtype=np.uint32) for row in rows])
    suspect = Suspect("all", None, ids.tolist())
    record = _detected([suspect, Suspect("none", None, documents(1, 300, 77)[0])], made)
    assert [h.key for h in record.documents[0].hypotheses] == [f"tenant:{name}" for name in guilty]
    assert set(record.documents[0].points_to or ()) == {f"tenant:{name}" for name in guilty}
    assert blind_and_aware(record.documents, record.alpha)[0] == [document.points_to for document in record.documents]


def test_decoys_of_few_accounts_are_as_they_were_and_of_many_are_cheap() -> None:
    assert [accounts_of_decoys(n, 100) for n in (0, 1, 10, 11, 10_000)] == [0, 1, 10, 1, 1]
    assert accounts_of_decoys(10_000, 0) == 10_000  # none at all


_TOKENIZER: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def tokenizer(smollm2_dir: Path) -> Path:
    _TOKENIZER[:] = [smollm2_dir]
    return smollm2_dir


def _of_demo(made: WatermarkSpec) -> WatermarkSpec:
    loaded = load_tokenizer(_TOKENIZER[0])
    return msgspec.structs.replace(
        made, vocabulary_size=vocabulary_size(loaded), tokenizer=tokenizer_fingerprint(loaded)
    )


def _detected(suspects: list[Suspect], made: WatermarkSpec, accounts: tuple[str, ...] = MANY) -> Record:
    read = [Input(name="x.jsonl", sha256="0" * 64, bytes=1)]
    ring = KeyRing.from_master(SECRET, 0, accounts)
    return detect(suspects, read, _of_demo(made), ring, _TOKENIZER[0], Settings(decoy_count=5))


def test_a_report_of_many_accounts_is_small() -> None:
    """Ten thousand accounts take the room of their names and hashes; a document that of a few keys."""
    accounts = tuple(f"account-{number}" for number in range(3000))
    suspects = [Suspect(f"line {n}", None, ids) for n, ids in enumerate(documents(8, 60, 3))]
    few, many = (_detected(suspects[:n], spec(global_share=0.5), accounts) for n in (4, 8))
    assert many.keys is not None and len(many.keys) == 3001
    assert (len(encode_record(many)) - len(encode_record(few))) / 4 < 40_000
    assert len(encode_record(many)) < 1_000_000


# --- recomputing -----------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A detection of more accounts than documents keep, one of them guilty of some documents."""
    folder = tmp_path_factory.mktemp("many")
    made = _of_demo(spec(global_share=0.5))
    write_key_file(folder / "owner.key", SECRET)
    for name in ("account-3", "account-90", "stranger"):
        made_key = run("keygen", folder / f"{name}.key", "--tenant", name, "--key", f"file:{folder / 'owner.key'}")
        assert made_key.exit_code == 0, made_key.output
    write_spec(folder / "spec.json", made)
    write_jsonl(folder / "x.jsonl", [*documents(2, 300, 3, made, "account-3"), *documents(3, 200, 5)])
    (folder / "accounts.txt").write_text("".join(f"{name}\n" for name in MANY))
    done = run(
        "detect", folder / "x.jsonl", "--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}",
        "--tenants-file", folder / "accounts.txt", "--tokenizer", tokenizer, "--decoys", "5", "-o", folder / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def _recompute(case: Path, key: str, report: Path) -> Result:
    return run("recompute", report, "--key", f"file:{case / key}", "--tokenizer", _TOKENIZER[0])


@pytest.mark.parametrize("key", ["owner", "account-3", "account-90"])
def test_it_holds_for_the_owner_and_for_accounts_whether_documents_keep_them_or_not(key: str, case: Path) -> None:
    done = _recompute(case, f"{key}.key", case / "out" / "report.json")
    assert done.exit_code == 0, done.output
    assert ("every number the same" in done.output) if key == "owner" else ("120 other keys" in done.output)
    assert _recompute(case, "stranger.key", case / "out" / "report.json").exit_code == 2


@pytest.mark.parametrize(
    ("what", "notices"),
    [("kept total", {"owner", "account-3"}), ("hash of account-90", {"owner", "account-90"}), ("found", {"owner"})],
)
def test_any_sum_that_was_changed_is_noticed_by_those_who_can_compute_it(
    what: str, notices: set[str], case: Path
) -> None:
    record = json.loads((case / "out" / "report.json").read_text())
    if what == "kept total":
        h = next(h for h in record["documents"][0]["hypotheses"] if h["key"] == "tenant:account-3")
        h["subkeys"][1]["total"] += 1
    elif what == "found":
        record["documents"][3]["found"] = True
    else:
        next(key for key in record["keys"] if key["key"] == "tenant:account-90")["sha256"] = "0" * 64
    changed = case / "out" / "changed.json"
    changed.write_text(json.dumps(record))
    statuses = {key: _recompute(case, f"{key}.key", changed).exit_code for key in ("owner", "account-3", "account-90")}
    changed.unlink()
    assert {key for key, status in statuses.items() if status == 3} == notices
    assert set(statuses.values()) == {0, 3}


def test_reports_of_decoys_with_all_accounts_are_computed_as_they_were(case: Path, tmp_path: Path) -> None:
    """Older reports don't say how many accounts' keys a decoy has: as many as were tested."""
    made = _of_demo(spec(global_share=0.5))
    from detect.document.recompute import recompute
    from detect.keyed.held import ring_on_record
    from detect.readers.suspects import read_suspects

    suspects, read = read_suspects(str(case / "x.jsonl"))
    few = MANY[:12]
    ring = KeyRing.from_master(SECRET, 0, few)
    options = {"format": "auto", "text_field": "text", "from_text": False, "limit": None, "tenants": list(few)}
    older = detect(
        suspects, [read], made, ring, _TOKENIZER[0], Settings(decoy_count=90, decoy_accounts=12), arguments=options
    )
    older = msgspec.structs.replace(older, decoy_accounts=None)
    write_record(tmp_path / "report.json", older)
    own = ring_on_record(f"file:{case / 'owner.key'}", made, [h.key for h in older.documents[0].hypotheses])
    assert recompute(older, own, _TOKENIZER[0], tmp_path / "report.json") == []
    newer = msgspec.structs.replace(older, decoy_accounts=1)
    assert recompute(newer, own, _TOKENIZER[0], tmp_path / "report.json") != []
