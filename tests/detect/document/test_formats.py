"""Foreign marks are found with the statistics of our own, and p-values of text without them are uniform or larger."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.corpus.scan import ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.document.blind import blind_test, law_tails
from detect.keyed.calibration import bounded_log10, explanation, method_of, rank_log10, staged_rank
from detect.keyed.scoring import statistics_of, tallies
from detect.keyed.words import signed
from detect.laws.tails import log10_sf_pairs
from detect.records.detection import Record
from detect.records.reading import read_record
from detect.report.paper.page import page as draw
from detect.report.scan.story import story
from detect.report.verification import verify_report
from detect.text.distinct import distinct_tuples
from detect.text.natural_text import natural_documents
from tests.detect.calibration import log10_excess, log10_too_small
from tests.detect.corpus.marked import InlineEngine, write_jsonl
from tests.detect.foreign import fresh_keys, marked, owner
from tests.watermark.formats.test_registry import VOCABULARY, made, spec
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.keys import KeyRing, load_key, write_key_file
from watermark.keys.foreign import ForeignKey
from watermark.registry import format_names
from watermark.spec import load_spec, write_spec

KINDS = ("prose", "repetitive", "code")
TOKENS = 130
BUDGET = 330_000  # words for each format and kind of text
MOST_KEYS = 2_500
FEWER_KEYS = {"transformers-kgw-selfhash": 800}  # where each word takes shuffles of the vocabulary
EXACT, BOUNDED, RANKED = "vllm-gumbel", "transformers-kgw-lefthash", "textseal-gumbel"


@pytest.fixture(scope="module")
def documents(smollm2_tokenizer: Any) -> dict[str, np.ndarray]:
    """A document of each kind; ids are folded into the small vocabulary, which makes repeats more common."""
    texts = {kind: next(iter(natural_documents(kind, 1)))[1] for kind in KINDS}
    return {k: np.array(smollm2_tokenizer.encode(t).ids[:TOKENS], np.uint32) % VOCABULARY for k, t in texts.items()}


def _pvalues(scheme: Format, ids: np.ndarray, seed: str) -> np.ndarray:
    tuples = distinct_tuples(ids, scheme.context_width)
    count = min(FEWER_KEYS.get(scheme.name, MOST_KEYS), BUDGET // len(tuples))
    keys = list(fresh_keys(scheme, seed, count))
    tails = law_tails(scheme, keys, tuples)[2]
    if method_of(scheme) != "ranked":
        return np.asarray(10 ** bounded_log10(scheme, tails))
    # Every so many keys are ranked among decoys of their own.
    decoys, few = 199, 15
    blocks = [tails[i : i + decoys + few] for i in range(0, len(tails) - decoys - few, decoys + few)]
    ranks = [np.sum(block[few:] <= true) for block in blocks for true in block[:few]]
    return np.asarray(10 ** rank_log10(np.array(ranks), decoys))


@pytest.mark.parametrize("name", format_names())
def test_pvalues_under_fresh_keys_are_uniform_or_larger(name: str, documents: dict[str, np.ndarray]) -> None:
    scheme = made(name)
    for kind in KINDS:
        found = _pvalues(scheme, documents[kind], f"{name} {kind}")
        assert len(found) >= 100
        # A discrete tail is bounded only from one above the mean on: smaller levels are what evidence is made of.
        assert log10_too_small(np.where(found > 0.3, 1.0, found)) > -5, kind
        for level in (1e-1, 1e-2, 1e-3):
            assert log10_excess(found, level) > -5, f"{kind}: {np.sum(found <= level)} of {len(found)} at {level}"


def test_counting_what_is_hashed_alike_twice_would_be_wrong(documents: dict[str, np.ndarray]) -> None:
    """The trap that `inputs` is for: under self-hashing different windows share seed and token."""
    scheme = made("lm-watermarking")
    ids = np.tile(np.random.default_rng(5).integers(0, 12, 500), 1).astype(np.uint32)
    tuples = distinct_tuples(ids, scheme.context_width)
    keys = list(fresh_keys(scheme, "twice", 150))
    counted, _ = tallies(scheme, keys, tuples)
    assert counted.max() < len(tuples) / 2
    tails = law_tails(scheme, keys, tuples)[2]
    assert log10_excess(10**tails, 1e-2) > -5
    twice = [int(statistics_of(scheme, key, tuples).sum()) for key in keys]
    assert log10_excess(10 ** log10_sf_pairs(scheme.law, len(tuples), twice), 1e-2) < -5


def _between(values: np.ndarray, first: int, end: int) -> np.ndarray:
    return values[first:end]


def test_stages_keep_ranks_valid() -> None:
    """True and decoy values alike: whatever the stages do, p <= x has at most the chance x."""
    rng, found = np.random.default_rng(0), []
    for _ in range(3_000):
        values = rng.random(2_000)
        counts = staged_rank(rng.random(), partial(_between, values), [20, 200, 2_000])
        found.append(float(10 ** rank_log10(*counts)))
    pvalues = np.array(found)
    for level in (0.2, 0.1, 0.05, 0.02, 0.01, 2e-3, 1e-3):
        assert log10_excess(pvalues, level) > -4
    assert pvalues.min() < 2e-3  # and they do go further


@pytest.mark.parametrize("name", format_names())
def test_a_marked_answer_is_found_and_another_key_finds_nothing(name: str) -> None:
    bits = {"depth": 8} if "synthid" in name else {}
    own, ring, key = owner(name, **({"parameters": bits} if bits else {}))
    tuples = distinct_tuples(marked(own, key, 90), own.context_width, np.empty(0, np.uint32))
    test = blind_test(own, ring, tuples, decoy_count=20)
    assert test.refused is None
    assert test.decoys is not None and test.decoys.rank == 1
    if method_of(made(name)) == "ranked":
        assert test.decoys.drawn == 2_000
        if hasattr(made(name), "log10_bound"):
            assert test.log10_pvalue < -6
        else:
            assert test.log10_pvalue == pytest.approx(-np.log10(2_001))
        assert test.hypotheses[0].subkeys[0].log10_pvalue < -6  # what is ranked
    else:
        floor = made(name).seed_bits * np.log10(2) if not made(name).exact else np.inf
        assert -floor - 1e-6 <= test.log10_pvalue < -5
    fresh = next(fresh_keys(own.build_scheme(), "another", 1))  # type: ignore[arg-type]
    nothing = blind_test(own, type(ring).from_foreign(fresh), tuples, decoy_count=20)
    assert nothing.log10_pvalue > -3


@pytest.mark.parametrize("seed", range(4))
def test_a_bound_lies_above_the_tail_over_all_keys(seed: int) -> None:
    """Two layers of 6-bit keys: every ordered pair of different keys is looked at."""
    scheme: Any = made("transformers-synthid", depth=2, key_bits=6, context_width=1)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 40, 120).astype(np.uint32)
    tuples = distinct_tuples(ids, 1)
    every = [(a, b) for a in range(1, 64) for b in range(1, 64) if a != b]
    keys = [ForeignKey(scheme.name, key, bytes(16)) for key in every]
    _, totals = tallies(scheme, keys, tuples)
    contexts, tokens = signed(tuples.contexts), tuples.tokens.astype(np.int64)
    for i in np.argsort(-totals)[[0, 1, 5, 40, 400, 2_000]].tolist():
        tail, bound = np.log10(np.mean(totals >= totals[i])), scheme.log10_bound(every[i], contexts, tokens)
        assert tail <= bound <= 0
    best = int(np.argmax(totals))
    assert scheme.log10_bound(every[best], contexts, tokens) < -1.5  # and it is worth something


def test_only_formats_that_are_not_exact_explain_themselves() -> None:
    assert explanation(made(EXACT)) is None
    assert "2^-32" in (explanation(made(BOUNDED)) or "")
    assert "rank among decoy keys" in (explanation(made(BOUNDED), by_rank=True) or "")
    assert "1 / (1 + decoys)" in (explanation(made(RANKED)) or "")


def test_ranks_need_decoys() -> None:
    own, ring, key = owner(RANKED)
    tuples = distinct_tuples(marked(own, key, 20), own.context_width)
    with pytest.raises(DyetraceError, match="must be some: give --decoys"):
        blind_test(own, ring, tuples, decoy_count=0)


@pytest.mark.parametrize("name", [EXACT, "vllm-dual-key-gumbel", BOUNDED, RANKED])
def test_a_scan_finds_the_marked_documents_and_its_report_verifies(name: str, tmp_path: Path) -> None:
    own, _, key = owner(name)
    write_key_file(tmp_path / "foreign.key", key)
    rows = [marked(own, key if number % 4 == 0 else None, 80, seed=number) for number in range(12)]
    write_jsonl(tmp_path / "corpus.jsonl", rows)
    job = ScanJob(
        paths=[str(tmp_path / "corpus.jsonl")],
        specs=[own],
        key=f"file:{tmp_path / 'foreign.key'}",
        settings=ScanSettings(decoys=20),
        null_corpus=(),
    )
    record = scan(job, tmp_path / "out", InlineEngine())
    assert [hit.ordinal for hit in sorted(record.hits, key=lambda hit: hit.ordinal)] == [0, 4, 8]
    assert record.refused is None
    exact = name not in (BOUNDED, RANKED)
    assert (record.calibration is None) == exact
    if exact:
        assert record.found and record.hypotheses[0].log10_pvalue_pooled < -20
    else:
        assert record.hypotheses[0].log10_pvalue_pooled == pytest.approx(-np.log10(21))
        assert record.shares.documents.estimate is None
    verified = verify_report(tmp_path / "out" / "report.json")
    assert verified.holds, verified.failed
    page = draw(story(record))
    assert ("they are exact where the key had no say" in page) == exact
    assert ("not exact" in page) != exact


# --- by the command -------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def job(tmp_path: Path, smollm2_dir: Path) -> Path:
    """A folder with vLLM's configuration, and what the import makes of it."""
    (tmp_path / "watermark-config.json").write_text('{"algorithm": "gumbel", "key": 998877665544, "context_width": 2}')
    done = run(
        "spec", "import", "--format", EXACT, "--from", tmp_path / "watermark-config.json", "--model", smollm2_dir,
        "-o", tmp_path / "spec.json", "--key-out", tmp_path / "foreign.key",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return tmp_path


def test_an_imported_mark_is_detected_committed_to_and_recomputed(job: Path, smollm2_dir: Path) -> None:
    assert "998877665544" not in (job / "spec.json").read_text()
    assert (job / "foreign.key").stat().st_mode & 0o777 == 0o600
    own, key = load_spec(job / "spec.json"), load_key(f"file:{job / 'foreign.key'}")
    write_jsonl(job / "answers.jsonl", [marked(own, key, 80), marked(own, None, 80, seed=1)])  # type: ignore[arg-type]
    of_key = ("--key", f"file:{job / 'foreign.key'}")
    assert run("commit", "--spec", job / "spec.json", *of_key, "-o", job / "c.json").exit_code == 0
    assert run("verify-commitment", job / "c.json", "--spec", job / "spec.json", *of_key).exit_code == 0
    done = run(
        "detect", job / "answers.jsonl", "--spec", job / "spec.json", *of_key, "--tokenizer", smollm2_dir,
        "--commitment", job / "c.json", "-o", job / "evidence", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["documents"]
    assert (first["found"], second["found"]) == (True, False)
    page = (job / "evidence" / "report.html").read_text()
    assert "vLLM 0.32" in page and "they are exact where the key had no say" in page and "998877665544" not in page
    again = run("recompute", job / "evidence" / "report.json", *of_key, "--tokenizer", smollm2_dir, "--inputs", "/")
    assert again.exit_code == 0, again.output


def test_the_page_of_a_ranked_format_says_so_and_its_report_is_recomputed(tmp_path: Path, smollm2_dir: Path) -> None:
    (tmp_path / "secret.txt").write_text("424242")
    files = ("-o", tmp_path / "spec.json", "--key-out", tmp_path / "foreign.key", "--model", smollm2_dir)
    assert run("spec", "import", "--format", RANKED, "--from", tmp_path / "secret.txt", *files).exit_code == 0
    own, key = load_spec(tmp_path / "spec.json"), load_key(f"file:{tmp_path / 'foreign.key'}")
    write_jsonl(tmp_path / "answers.jsonl", [marked(own, key, 60), marked(own, None, 60, seed=1)])  # type: ignore[arg-type]
    of_key = ("--key", f"file:{tmp_path / 'foreign.key'}", "--tokenizer", smollm2_dir)
    asked = ("detect", tmp_path / "answers.jsonl", "--spec", tmp_path / "spec.json", *of_key, "--decoys", "20")
    done = run(*asked, "--alpha", "0.01", "-o", tmp_path / "evidence")
    assert done.exit_code == 0, done.output
    assert "are not exact" in done.stdout
    record = read_record(Record, tmp_path / "evidence" / "report.json")
    assert [document.found for document in record.documents] == [True, False]
    assert record.documents[0].decoys is not None and record.documents[0].decoys.drawn == 2_000
    page = (tmp_path / "evidence" / "report.html").read_text()
    assert "P-values are exact" not in page and "rank among decoy keys" in page
    again = run("recompute", tmp_path / "evidence" / "report.json", *of_key, "--inputs", "/")
    assert again.exit_code == 0, again.output


def test_a_known_prompt_is_no_context_where_the_system_reads_none(job: Path, smollm2_dir: Path) -> None:
    from detect.document.detection import Settings, detect
    from detect.readers.suspects import Suspect
    from watermark.models.tokenizer import load_tokenizer

    own, key = load_spec(job / "spec.json"), load_key(f"file:{job / 'foreign.key'}")
    ids = marked(own, key, 40).tolist()  # type: ignore[arg-type]
    suspects = [
        Suspect(name="x", text=None, token_ids=ids, prompt_token_ids=prompt) for prompt in (None, [5, 6, 7], [9] * 20)
    ]
    ring = KeyRing.from_foreign(key)  # type: ignore[arg-type]
    record = detect(suspects, [], own, ring, load_tokenizer(smollm2_dir), Settings(decoy_count=0, view=False))
    unknown, one, other = (document.hypotheses[0] for document in record.documents)
    assert unknown.tuples == 38 and one.tuples == 40
    assert one.subkeys == other.subkeys
    assert one.log10_pvalue < unknown.log10_pvalue


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("{}", {}, "lacks the field 'key'"),
        ("[1, 2]", {}, "a key of vLLM is a decimal number"),
        ('{"key": 1, "algorithm": "sbw"}', {}, "its algorithm is 'sbw'"),
        ('{"key": 1}', {"--format": "vllm"}, "no format is called 'vllm'"),
        ('{"key": 1}', {"--from": "nowhere.json"}, "cannot read nowhere.json"),
        ('{"key": 1}', {"--param": "context_width"}, "--param takes NAME=VALUE"),
        ('{"key": 1}', {"--param": "context_width=0"}, "context_width must be at least 1"),
        ('{"key": 1}', {"--param": "width=2"}, "has no parameter 'width'"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_leaves_no_file(
    content: str, changes: dict[str, str], message: str, tmp_path: Path, smollm2_dir: Path
) -> None:
    (tmp_path / "c.json").write_text(content)
    options = {"--format": EXACT, "--from": str(tmp_path / "c.json"), "--model": str(smollm2_dir)} | changes
    files = ("-o", tmp_path / "spec.json", "--key-out", tmp_path / "foreign.key")
    done = run("spec", "import", *(part for pair in options.items() for part in pair), *files)
    assert done.exit_code == 2, done.output
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("dyetrace: ") and message in line
    assert not (tmp_path / "spec.json").exists() and not (tmp_path / "foreign.key").exists()


def test_a_key_file_is_never_overwritten(job: Path, smollm2_dir: Path) -> None:
    before = (job / "foreign.key").read_bytes()
    done = run(
        "spec", "import", "--format", EXACT, "--from", job / "watermark-config.json", "--model", smollm2_dir,
        "-o", job / "again.json", "--key-out", job / "foreign.key",
    )  # fmt: skip
    assert done.exit_code == 2 and "never overwritten" in done.output
    assert (job / "foreign.key").read_bytes() == before and not (job / "again.json").exists()


def test_a_spec_of_a_format_and_a_key_of_ours_do_not_go_together(job: Path, smollm2_dir: Path, tmp_path: Path) -> None:
    assert run("keygen", tmp_path / "owner.key").exit_code == 0
    done = run(
        "detect", job / "watermark-config.json", "--spec", job / "spec.json", "--key", f"file:{tmp_path / 'owner.key'}",
        "--tokenizer", smollm2_dir,
    )  # fmt: skip
    assert done.exit_code == 2 and "give the key file that `dyetrace spec import` wrote" in done.output
    write_spec(tmp_path / "plain.json", spec(EXACT))
    done = run("generate", "--spec", job / "spec.json", "--key", f"file:{job / 'foreign.key'}", "--model", smollm2_dir)
    assert done.exit_code == 2
