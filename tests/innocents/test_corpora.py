"""Texts that look guilty to a careless test, through `dyetrace detect`, `detect --aware` and `dyetrace scan`.

Rates are those of fresh keys, at levels 1e-2 and 1e-3, inside exact binomial intervals; every kind of text goes through
the command line once as well. What a careless reader would get wrong is said where the report ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.special import bdtr, bdtrc
from tokenizers import Tokenizer

from detect.cli.main import main
from detect.corpus import conclude, score
from detect.corpus.settings import ScanSettings
from detect.corpus.tally import Documents, Tally
from detect.document.blind import blind_test
from detect.laws.multiplicity import holm_log10
from detect.laws.tails import log10_sf_many
from detect.records.reading import read_record
from detect.records.scan import ScanRecord
from detect.server.evidence import fisher_log10
from detect.text.distinct import distinct_tuples
from detect.text.natural_text import natural_documents
from tests.detect.calibration import fresh_keys
from tests.detect.corpus.marked import SECRET, documents, keys_of, spec, write_jsonl
from tests.detect.corpus.test_scan_calibration import block_of
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec, write_spec

LEVELS = (1e-2, 1e-3)
NOT_CHOSEN = "The text was not chosen with the key, or by anything that depends on it"
QUOTED = "Text that quotes marked text is marked text"


def assert_rates(log10_ps: Sequence[float] | np.ndarray, *, exact: bool = True) -> None:
    """The counts at or below each level lie in their binomial interval; of corrected p-values only from above."""
    found = np.asarray(log10_ps)
    for level in LEVELS:
        count, n = int(np.sum(found <= np.log10(level))), len(found)
        assert bdtrc(count - 1, n, level) > 1e-4 or count == 0, f"{count} of {n} at {level}: too many"
        if exact and n * level >= 10:
            assert bdtr(count, n, level) > 1e-4, f"{count} of {n} at {level}: too few"


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def words(text: str) -> str:
    """The text with its lines joined, as a reader takes it."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path, smollm2_tokenizer: Tokenizer) -> Path:
    """The owner's key and specs for token ids and for text, and a small model that knows nothing."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tmp_path_factory.mktemp("innocents")
    write_key_file(made / "owner.key", SECRET)
    write_spec(made / "ids.json", spec())
    write_spec(made / "accounts.json", spec(global_share=0.5))
    write_spec(made / "text.json", real_spec(smollm2_tokenizer, SECRET))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=smollm2_tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(made / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (made / "model" / name).write_bytes((smollm2_dir / name).read_bytes())
    return made


def real_spec(tokenizer: Tokenizer, key: SecretKey, **fields: Any) -> WatermarkSpec:
    return WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
        **fields,
    )


def scan(folder: Path, corpus: Path, made: str, output: Path, *more: str | Path) -> tuple[Result, ScanRecord]:
    result = run(
        "scan", corpus, "--spec", folder / made, "--key", f"file:{folder / 'owner.key'}", "-o", output,
        "--workers", "1", "--decoys", "20", "--null-corpus", "none", "--no-pdf", *more,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result, read_record(ScanRecord, output / "report.json")


def detect(folder: Path, source: Path, *more: str | Path) -> Result:
    result = run(
        "detect", source, "--spec", folder / "text.json", "--key", f"file:{folder / 'owner.key'}",
        "--tokenizer", folder / "model", "--decoys", "20", *more,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result


def tallies(rows: list[np.ndarray], made: dict[str, Any], label: str, count: int) -> Iterator[tuple[Tally, Documents]]:
    """The scan's results under fresh keys, all of one sub-key."""
    block, first, prints = block_of(rows, 2)
    settings = ScanSettings(decoys=0)
    for key in fresh_keys(label, count):
        keys = keys_of(spec(key_fingerprint=key.fingerprint, **made), secret=key)
        yield score.score_block(block, first, prints, int(first.sum()), keys, settings)


# ---------------------------------------------------------------------------- another account's text, another epoch's


def test_text_of_one_account_is_not_found_under_others_or_in_another_epoch() -> None:
    """The pooled test, which is exact, of 3,000 accounts that had no say in a corpus that acme and the owner marked."""
    shared = spec(global_share=0.5)
    block, first, prints = block_of(list(documents(12, 150, 1, shared, "acme")), 2)
    settings = ScanSettings(decoys=0)
    names = [f"other-{number}" for number in range(3_000)]
    for epoch in (0, 1):
        keys = keys_of(spec(global_share=0.5, epoch=epoch), ("acme", *names))
        tally, _ = score.score_block(block, first, prints, int(first.sum()), keys, settings)
        found = {h.key: h for h in conclude.hypotheses(keys, tally, {})}
        assert (found["global"].log10_pvalue < -6) == (epoch == 0)
        assert (found["tenant:acme"].log10_pvalue < -6) == (epoch == 0)
        assert_rates([found[f"tenant:{name}"].log10_pvalue_pooled for name in names])
        assert_rates([found[f"tenant:{name}"].log10_pvalue for name in names], exact=False)


def test_the_command_finds_the_owner_and_never_the_wrong_account(folder: Path, tmp_path: Path) -> None:
    shared = spec(global_share=0.5)
    corpus = write_jsonl(tmp_path / "x.jsonl", [*documents(10, 200, 2, shared, "acme"), *documents(30, 200, 3)])
    _, record = scan(
        folder, corpus, "accounts.json", tmp_path / "out", "--tenant", "zenith", "--tenant", "north", "--alpha", "0.01"
    )
    found = {h.key: h for h in record.hypotheses}
    assert record.found and found["global"].log10_pvalue_adjusted < -6
    assert found["tenant:zenith"].pointed == found["tenant:north"].pointed == 0
    assert all(hit.points_to in ([], ["global"]) for hit in record.hits)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "None of the accounts tested is found: tenant zenith and tenant north" in page
    write_spec(tmp_path / "epoch.json", spec(global_share=0.5, epoch=5))
    (tmp_path / "owner.key").write_bytes((folder / "owner.key").read_bytes())
    (tmp_path / "owner.key").chmod(0o600)
    _, later = scan(tmp_path, corpus, "epoch.json", tmp_path / "later", "--tenant", "acme")
    assert not later.found


# ------------------------------------------------------------------------------------------ near-duplicate corpora


@pytest.fixture(scope="module")
def copies() -> list[np.ndarray]:
    """One unmarked document a thousand times, two tokens of each copy changed."""
    draw = np.random.default_rng(4)
    rows = np.repeat(documents(1, 60, 5), 1_000, axis=0)
    for row in rows[1:]:
        row[draw.choice(60, 2, replace=False)] = draw.integers(0, 5_000, 2)
    return list(rows)


def test_a_scan_of_a_thousand_near_copies_is_uniform_under_fresh_keys(copies: list[np.ndarray]) -> None:
    pooled, both = [], []
    scheme = spec().build_scheme()
    for tally, _ in tallies(copies, {"subkeys": 1}, "near copies", 1_500):
        n = int(tally.tuples[0])
        pooled.append(float(log10_sf_many(scheme.law, n, [tally.totals[0, 0] * scheme.unit])[0]))
        keys = keys_of(spec(subkeys=1))  # names and laws alone: totals are the fresh key's
        both.append(conclude.hypotheses(keys, tally, {})[0].log10_pvalue)
    assert_rates(pooled)
    assert_rates(both, exact=False)


def test_in_detect_each_near_copy_is_right_alone_and_their_combination_is_not_claimed(copies: list[np.ndarray]) -> None:
    few = [distinct_tuples(row, 2) for row in copies[:20]]
    alone, smallest, together = [], [], []
    for key in fresh_keys("near copies in detect", 1_500):
        made = spec(key_fingerprint=key.fingerprint, subkeys=1)
        ring = KeyRing.from_master(key)
        log10_ps = [blind_test(made, ring, tuples, decoy_count=0).log10_pvalue for tuples in few]
        alone.append(log10_ps[7])
        smallest.append(float(holm_log10(log10_ps).min()))
        together.append(fisher_log10(log10_ps))
    assert_rates(alone)
    assert_rates(smallest, exact=False)  # Holm holds however documents depend on each other
    assert np.mean(np.array(together) <= -3) > 0.1  # multiplying them would accuse one innocent in ten at 1e-3


def test_the_commands_say_how_copies_count(folder: Path, tmp_path: Path, prose: list[str]) -> None:
    lines = [{"text": f"{prose[5]} Copy {number % 30}."} for number in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shown = words(detect(folder, tmp_path / "x.jsonl").stdout)
    assert "Mark found in 0 of 40 documents" in shown
    assert "10 have the same tokens as an earlier one" in shown and "nearly alike ones were not looked for" in shown
    _, record = scan(folder, tmp_path / "x.jsonl", "text.json", tmp_path / "out", "--tokenizer", folder / "model")
    assert not record.found and record.distinct_tuples < record.tuples / 20
    assert any(one.checked and "Repeated text is one piece of evidence" in one.says for one in record.assumptions)


# ------------------------------------------------------------------------------------------------ lists and code


def lists() -> list[str]:
    """What list-makers write: numbers, bullets and tables, which repeat themselves."""
    numbered = "\n".join(f"{number}. Item {number}: see item {number - 1}." for number in range(1, 60))
    bullets = "- milk\n- eggs\n- bread\n" * 20 + "- salt\n"
    table = "\n".join(f"| {a} | {a * 7 % 13} | {a * a} | yes |" for a in range(60))
    return [numbered, bullets, table, ", ".join(f"tag{number}" for number in range(120))]


@pytest.fixture(scope="module")
def odd_texts() -> list[str]:
    return [*lists(), *(text[:1500] for _, text in natural_documents("code", 4))]


def test_lists_and_code_are_uniform_under_fresh_keys(odd_texts: list[str], smollm2_tokenizer: Tokenizer) -> None:
    everything = [distinct_tuples(np.array(smollm2_tokenizer.encode(x).ids, np.uint32), 2) for x in odd_texts]
    made = real_spec(smollm2_tokenizer, SECRET, subkeys=1)
    for number, tuples in enumerate(everything):
        found = [
            blind_test(made, KeyRing.from_master(key), tuples, decoy_count=0).log10_pvalue
            for key in fresh_keys(f"odd {number}", 1_500)
        ]
        assert_rates(found)


def test_with_a_model_lists_and_code_stay_below_their_level(
    odd_texts: list[str], smollm2_tokenizer: Tokenizer, folder: Path
) -> None:
    from detect.document.aware import log10_evalues
    from detect.document.likelihood import likelihood
    from watermark.models.folder import load_model

    model, _ = load_model(str(folder / "model"), "bfloat16")
    for number, text in enumerate(odd_texts[::3]):
        ids = np.array(smollm2_tokenizer.encode(text).ids[:60], np.uint32)
        read = likelihood(model, ids, 2)
        keys = list(fresh_keys(f"aware {number}", 400))
        everywhere = [np.ones(len(read.tuples), np.bool_)] * len(keys)
        log10_es = log10_evalues(spec().build_scheme(), keys, everywhere, read)
        assert_rates(np.minimum(0.0, -log10_es), exact=False)


def test_the_commands_find_nothing_in_lists_and_code(folder: Path, tmp_path: Path, odd_texts: list[str]) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in odd_texts))
    blind = detect(folder, tmp_path / "x.jsonl", "--alpha", "0.01")
    assert f"Mark found in 0 of {len(odd_texts)} documents" in words(blind.stdout)
    aware = detect(
        folder, tmp_path / "x.jsonl", "--alpha", "0.01", "--aware", "--model", folder / "model", "--limit", "4"
    )
    assert "Mark found in 0 of 4 documents" in words(aware.stdout)
    assert "The model that judged the text never learnt from text that is marked" in words(aware.stdout)
    _, record = scan(
        folder, tmp_path / "x.jsonl", "text.json", tmp_path / "out", "--tokenizer", folder / "model", "--alpha", "0.01"
    )
    assert not record.found


# ------------------------------------------------------------------------------------------------- quoted marked text


@pytest.fixture(scope="module")
def marked_text(smollm2_tokenizer: Tokenizer) -> str:
    """Words that the real key chose among twenty of a list, as a generator with little to say would."""
    made = real_spec(smollm2_tokenizer, SECRET)
    ring = KeyRing.from_master(SECRET)
    assert isinstance(ring.global_key, SecretKey)
    key = subkey(ring.global_key, 0)
    choices = [smollm2_tokenizer.encode(f" {word}").ids for word in WORDS]
    single = np.array([ids[0] for ids in choices if len(ids) == 1], np.uint32)
    ids = single[:2].tolist()
    from watermark import prf

    for _ in range(110):
        nonce = prf.nonces(np.array([ids[-2:]], np.uint32), None)
        scores = prf.words_among(key.words[None], nonce, single[None])[0]
        ids.append(int(single[np.argmax(scores)]))
    text: str = smollm2_tokenizer.decode(ids)
    assert made.context_width == 2
    return text


WORDS = (
    "river water stone light house green morning people little winter garden letter music paper ship horse "
    "market mountain window summer forest silver kitchen bridge street child friend story table road field storm"
).split()


def test_a_quotation_of_marked_text_is_found_and_the_report_says_what_that_means(
    folder: Path, tmp_path: Path, marked_text: str, prose: list[str]
) -> None:
    essay = f"{prose[8]}\n\nOne of the answers in question reads: “{marked_text}”\n\n{prose[9]}"
    (tmp_path / "essay.txt").write_text(essay)
    shown = words(detect(folder, tmp_path / "essay.txt").stdout)
    assert "Mark found in 1 of 1 document" in shown
    assert QUOTED in shown and "and not who put it there." in shown
    lines = "\n".join(json.dumps({"text": text}) for text in [essay, *prose[10:40]])
    (tmp_path / "x.jsonl").write_text(lines)
    result, record = scan(folder, tmp_path / "x.jsonl", "text.json", tmp_path / "out", "--tokenizer", folder / "model")
    assert record.found and [hit.record for hit in record.hits] == [1]
    assert QUOTED in words(result.stdout) and QUOTED in (tmp_path / "out" / "report.html").read_text()
    [segment, *_] = record.hits[0].segments
    assert segment.start > 100  # it is the quotation that is marked


# --------------------------------------------------------------------------------------------- a reader who filters


def test_the_most_marked_of_many_unmarked_texts_are_found_and_the_report_names_that_assumption(
    folder: Path, tmp_path: Path
) -> None:
    """What no control can see: ten of 1,000 unmarked texts that a detector of the same key picked."""
    made = spec(subkeys=1)
    write_spec(tmp_path / "one.json", made)
    (tmp_path / "owner.key").write_bytes((folder / "owner.key").read_bytes())
    (tmp_path / "owner.key").chmod(0o600)
    texts = documents(1_000, 120, 6)
    ring = KeyRing.from_master(SECRET)
    log10_ps = [blind_test(made, ring, distinct_tuples(row, 2), decoy_count=0).log10_pvalue for row in texts]
    assert_rates(log10_ps)
    picked = write_jsonl(tmp_path / "picked.jsonl", list(texts[np.argsort(log10_ps)[:10]]))
    result, record = scan(tmp_path, picked, "one.json", tmp_path / "picked")
    assert record.found and record.log10_pvalue is not None and record.log10_pvalue < -8
    assert record.controls.decoy_log10_agreement > -4  # decoys agree: they can't see it
    [chosen] = [one for one in record.assumptions if one.says.startswith(NOT_CHOSEN)]
    assert not chosen.checked and "the most marked of many unmarked texts looks marked" in chosen.how
    shown = words(result.stdout)
    assert NOT_CHOSEN in shown and "(not checked here: All that was given to this run is counted: 1 file" in shown
    assert NOT_CHOSEN in (tmp_path / "picked" / "report.html").read_text()
    everything = write_jsonl(tmp_path / "all.jsonl", list(texts))
    _, whole = scan(tmp_path, everything, "one.json", tmp_path / "all")
    assert not whole.found  # all the text that there was


# ---------------------------------------------------------------------------------- many texts under one key at once


def test_the_documents_of_one_scan_keep_their_level(folder: Path, tmp_path: Path) -> None:
    """3,000 unmarked documents under one key, which share no tuple: their p-values are as many trials."""
    from pyarrow import parquet

    corpus = write_jsonl(tmp_path / "x.jsonl", list(documents(3_000, 40, 7)))
    _, record = scan(folder, corpus, "ids.json", tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "documents.parquet")
    assert_rates(table.column("log10_pvalue").to_numpy())
    assert not record.found and record.documents == 3_000


def test_the_documents_of_one_detection_keep_their_level(
    folder: Path, tmp_path: Path, smollm2_tokenizer: Tokenizer
) -> None:
    """The same of `dyetrace detect`, blind and with a model, whose e-values bound their p-values by Markov."""
    size = smollm2_tokenizer.get_vocab_size()
    ids = np.random.default_rng(8).integers(0, size, (2_000, 30))
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"token_ids": row.tolist()}) for row in ids))
    more = ["--decoys", "0", "--json"]
    blind = json.loads(detect(folder, tmp_path / "x.jsonl", *more).stdout)["documents"]
    assert_rates([document["log10_pvalue"] for document in blind])
    assert not any(document["found"] for document in blind)
    more += ["--aware", "--model", str(folder / "model"), "--limit", "300"]
    aware = json.loads(detect(folder, tmp_path / "x.jsonl", *more).stdout)["documents"]
    assert_rates([document["aware"]["log10_pvalue"] for document in aware], exact=False)
    assert not any(document["found"] for document in aware)
