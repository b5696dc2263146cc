"""Which account a document points to: controlled over all documents and keys of a scan, whoever else is guilty."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.corpus import conclude, score
from detect.corpus.locate import pointed_to
from detect.corpus.score import document_tests
from detect.corpus.settings import ScanSettings
from detect.corpus.tally import merge
from detect.keyed.owners import owned
from detect.keyed.rings import key_set
from detect.keyed.words import Source
from detect.laws.multiplicity import holm_log10
from detect.records.reading import read_record
from detect.records.scan import Hit, ScanRecord
from detect.text.distinct import Tuples, once
from tests.detect.calibration import log10_excess
from tests.detect.corpus.marked import SECRET, documents, keys_of, spec, write_jsonl
from tests.detect.corpus.test_scan_calibration import block_of
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.rowkeys import subkey
from watermark.spec import write_spec

SHARED = spec(global_share=0.5)
ALPHA = 1e-2
RUNS, INNOCENTS = 500, 20


@pytest.fixture(scope="module")
def rows() -> list[np.ndarray]:
    """Forty documents: twenty of account acme's, some of them beginning like earlier ones, and twenty unmarked."""
    acme = documents(20, 150, 1, SHARED, "acme")
    acme[10:, :40] = acme[:10, :40]
    return [*acme, *documents(20, 150, 2)]


@pytest.fixture(scope="module")
def log10_ps(rows: list[np.ndarray]) -> np.ndarray:
    """Each document's p-value under acme's key, then under 20 innocent accounts in each of 500 runs: (10,001, 40)."""
    block, first, _ = block_of(rows, SHARED.context_width)
    index = np.flatnonzero(first)
    tuples = Tuples(block.ids, SHARED.context_width, index, once(len(index)), 0)
    names = ["acme", *(f"innocent-{number}" for number in range(RUNS * INNOCENTS))]
    ring = KeyRing.from_master(SECRET, 0, tuple(names))
    theirs = owned(SHARED, ring.selector, tuples)[False]
    where = block.document_of_token[index][theirs]
    counts = np.bincount(where, minlength=len(rows))
    scheme = SHARED.build_scheme()
    source = Source.of(scheme, tuples.take(theirs))
    found = []
    for name in names:
        statistics = [scheme.statistic(source.under(subkey(ring.tenants[name], i))) for i in range(SHARED.subkeys)]
        totals = np.zeros((len(statistics), len(rows)), np.int64)
        for total, one in zip(totals, statistics, strict=True):
            np.add.at(total, where, one)
        found.append(document_tests(scheme, counts, totals)[0])
    return np.array(found)


def _runs(log10_ps: np.ndarray) -> list[np.ndarray]:
    """Of each run, acme's p-values and those of 20 innocents: (21, 40)."""
    innocents = log10_ps[1:].reshape(RUNS, INNOCENTS, -1)
    return [np.concatenate([log10_ps[:1], mine]) for mine in innocents]


def test_no_innocent_is_pointed_to_beyond_the_level_while_somebody_is_guilty(log10_ps: np.ndarray) -> None:
    level = np.log10(ALPHA) - np.log10(log10_ps.shape[1] * (1 + INNOCENTS))
    wrong = [bool(pointed_to(run[1:].ravel(), float(level)).any()) for run in _runs(log10_ps)]
    right = pointed_to(log10_ps[0], float(level))
    assert right[:20].sum() >= 15 and not right[20:].any()
    assert log10_excess(np.where(wrong, 0.0, 1.0), ALPHA) > -5, f"{sum(wrong)} of {RUNS}"


def test_the_check_fails_where_documents_are_not_paid_for(log10_ps: np.ndarray) -> None:
    """What was done once: Holm over the keys of each document, at the level of the report."""
    wrong = []
    for run in _runs(log10_ps):
        adjusted = np.array([holm_log10(column) for column in run.T])
        wrong.append(bool((adjusted[:, 1:] <= np.log10(ALPHA)).any()))
    assert log10_excess(np.where(wrong, 0.0, 1.0), ALPHA) < -20


def test_each_keys_pvalue_is_its_own_whoever_else_is_guilty(log10_ps: np.ndarray) -> None:
    """20 documents of another account's, 20 unmarked: an innocent's p-values are uniform or larger in both."""
    for part in (log10_ps[1:, :20], log10_ps[1:, 20:]):
        for level in (1e-2, 1e-3):
            assert log10_excess(10.0 ** part.ravel(), level) > -5
    assert abs(np.mean(10.0 ** log10_ps[1:, 20:]) - 0.5) < 0.01  # and no larger than they must be


def test_no_innocent_account_is_found_in_a_corpus_that_another_marked(rows: list[np.ndarray]) -> None:
    block, first, prints = block_of(rows[:12] + rows[20:], SHARED.context_width)
    settings = ScanSettings(decoys=0)
    wrong, single = [], []
    for run in range(RUNS):
        innocents = tuple(f"other-{run}-{i}" for i in range(4))
        keys = keys_of(SHARED, ("acme", *innocents))
        tally, _ = score.score_block(block, first, prints, int(first.sum()), keys, settings)
        by_name = {h.key: h for h in conclude.hypotheses(keys, merge([tally], score.unscored(keys, settings)), {})}
        assert by_name["global"].log10_pvalue_adjusted < -6 and by_name["tenant:acme"].log10_pvalue_adjusted < -6
        theirs = [by_name[f"tenant:{name}"] for name in innocents]
        single += [h.log10_pvalue for h in theirs]
        wrong.append(min(h.log10_pvalue_adjusted for h in theirs) <= np.log10(ALPHA))
    assert log10_excess(np.where(wrong, 0.0, 1.0), ALPHA) > -5, f"{sum(wrong)} of {RUNS}"
    for level in (1e-2, 1e-3):
        assert log10_excess(10.0 ** np.array(single), level) > -5


def test_the_command_points_to_the_guilty_alone_and_writes_what_it_paid(tmp_path: Path) -> None:
    rows = [*documents(30, 200, 3, SHARED, "acme"), *documents(200, 200, 4)]
    write_jsonl(tmp_path / "x.jsonl", rows)
    write_key_file(tmp_path / "owner.key", SECRET)
    write_spec(tmp_path / "spec.json", SHARED)
    (tmp_path / "accounts.txt").write_text("acme\n" + "".join(f"innocent-{i}\n" for i in range(20)))
    arguments = [
        "scan", tmp_path / "x.jsonl", "--spec", tmp_path / "spec.json", "--key", f"file:{tmp_path / 'owner.key'}",
        "--tenants-file", tmp_path / "accounts.txt", "--alpha", "0.01", "--decoys", "20", "-o", tmp_path / "out",
        "--workers", "1", "--no-pdf",
    ]  # fmt: skip
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    record = read_record(ScanRecord, tmp_path / "out" / "report.json")
    assert record.pairs_paid == record.discoveries.tested * 22 == 230 * 22
    hits = [msgspec.json.decode(line, type=Hit) for line in (tmp_path / "out" / "hits.jsonl").read_bytes().splitlines()]
    named = {key for hit in hits for key in hit.points_to}
    assert named == {"global", "tenant:acme"}
    assert sum("tenant:acme" in hit.points_to for hit in hits) >= 20
    assert all(hit.record <= 30 for hit in hits if hit.points_to)
    table = result.stdout.partition("\nDocuments\n")[2].partition("\nKeys\n")[0]
    assert "global, tenant acme" in table and "innocent" not in table
    assert CliRunner().invoke(main, ["report", "verify", str(tmp_path / "out" / "report.json")]).exit_code == 0


def test_keys_of_a_scan_share_no_words() -> None:
    """What the claims above rest on: keys of one owner are derived apart."""
    keys = key_set([SHARED], [KeyRing.from_master(SECRET, 0, ("acme", "zenith"))]).keys
    seen = [tuple(part.words.tolist()) for key in keys for part in key.subkeys if isinstance(part, SecretKey)]
    assert len(seen) == len(set(seen)) == 3 * SHARED.subkeys
