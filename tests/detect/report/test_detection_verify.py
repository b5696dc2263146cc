"""Verification of detections: every number that follows from others is computed again, so that no edit passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detect.document.detection import Settings, detect
from detect.laws.multiplicity import holm_log10
from detect.readers.suspects import Suspect
from detect.records.detection import AwareHypothesis, AwareResult, Record
from detect.records.reading import encode_record
from detect.report.verification import verify_report
from tests.detect import foreign
from tests.detect.corpus.marked import SECRET, documents, spec
from tests.detect.report.edits import unseen
from watermark.keys import KeyRing
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

replace = msgspec.structs.replace
Tokenizer = tuple[Any, dict[str, Any]]

# Numbers of which nothing else in the record tells: they take the texts or the key (recompute), or concern nobody.
NEEDS_THE_KEY = [
    r"inputs\.\d+\.bytes",
    r"decoy_accounts",
    r"documents\.\d+\.(tokens|prompt_tokens)",
    r"documents\.\d+\.decoys\.log10_pvalues\.\d+",  # which enter the agreement's statistic through one of them alone
    r"documents\.\d+\.aware\.(decoy_log10_evalues\.\d+|hypotheses\.\d+\.positions)",
    r"documents\.\d+\.view\.(pvalues\.\d+|subkey)",
    r"quotes",  # where there is nothing that could be quoted
]


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Tokenizer:
    loaded = load_tokenizer(smollm2_dir)
    return loaded, {"vocabulary_size": vocabulary_size(loaded), "tokenizer": tokenizer_fingerprint(loaded)}


def detected(tokenizer: Tokenizer, made: WatermarkSpec, ring: KeyRing, rows: Any, **settings: Any) -> Record:
    suspects = [Suspect(name=f"line {i}", text=None, token_ids=np.array(row).tolist()) for i, row in enumerate(rows)]
    return detect(suspects, [], made, ring, tokenizer[0], Settings(**{"decoy_count": 20, "view": False} | settings))


def with_accounts(tokenizer: Tokenizer) -> Record:
    made = spec(**tokenizer[1], global_share=0.5)
    rows = [*documents(2, 200, 1, made, "acme"), *documents(2, 200, 2), [1, 2]]
    return detected(tokenizer, made, KeyRing.from_master(SECRET, 0, ("acme", "zenith")), rows)


def with_one_key(tokenizer: Tokenizer) -> Record:
    made = spec(**tokenizer[1])
    rows = [*documents(1, 150, 1, made), *documents(1, 150, 2)]
    return detected(tokenizer, made, KeyRing.from_master(SECRET), rows, view=True)


def with_many_keys(tokenizer: Tokenizer) -> Record:
    made = spec(**tokenizer[1], global_share=0.5)
    names = ("acme", *(f"account-{i}" for i in range(150)))
    return detected(tokenizer, made, KeyRing.from_master(SECRET, 0, names), documents(2, 150, 1, made, "acme"))


def by_a_model_as_well(tokenizer: Tokenizer) -> Record:
    """As `detect --aware` writes it, with e-values made up: what is tested is what follows from them."""
    record = with_accounts(tokenizer)
    from detect.document.detection import adjust

    def aware(log10_es: list[float]) -> AwareResult:
        bounds = [min(0.0, -e) for e in log10_es]
        tests = [
            AwareHypothesis(
                key=key, positions=99, log10_evalue=e, log10_pvalue=p, log10_pvalue_adjusted=float(adjusted)
            )
            for key, e, p, adjusted in zip(
                ("global", "tenant:acme", "tenant:zenith"), log10_es, bounds, holm_log10(bounds), strict=True
            )
        ]
        return AwareResult(
            model="m",
            hypotheses=tests,
            log10_pvalue=min(t.log10_pvalue_adjusted for t in tests),
            decoy_log10_evalues=[-1.0, -2.0],
        )

    tested = [
        replace(d, aware=None if d.refused else aware([20.0 - 4 * i, 9.0, 3.0])) for i, d in enumerate(record.documents)
    ]
    return replace(record, documents=adjust(tested, record.alpha))


def of_a_format(name: str) -> Callable[[Tokenizer], Record]:
    def make(tokenizer: Tokenizer) -> Record:
        made, ring, key = foreign.owner(name, **tokenizer[1])
        rows = [foreign.marked(made, key, 150), foreign.marked(made, None, 150)]
        return detected(tokenizer, made, ring, rows, decoy_count=30)

    return make


KINDS: dict[str, Callable[[Tokenizer], Record]] = {
    "accounts": with_accounts,
    "one key": with_one_key,
    "many keys": with_many_keys,
    "model-aware": by_a_model_as_well,
    "ranked format": of_a_format("transformers-synthid"),
    "bounded format": of_a_format("vllm-gumbel"),
}


@pytest.fixture(scope="module", params=KINDS)
def record(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Record:
    return KINDS[request.param](tokenizer)


def test_an_untouched_report_holds(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(encode_record(record))
    found = verify_report(path)
    assert found.holds, found.failed
    left = {check.name for check in found.checks if check.outcome == "not done"}
    assert left == {"signature", "inputs", "totals"}


def test_no_edit_of_a_number_passes_that_others_give(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(encode_record(record))
    passed = unseen(path, NEEDS_THE_KEY)
    assert not passed, "\n".join(passed)


def test_an_innocent_document_made_guilty_is_seen(tokenizer: Tokenizer, tmp_path: Path) -> None:
    record = with_one_key(tokenizer)
    guilty = replace(record.documents[1], log10_pvalue=-30.0, log10_pvalue_corpus=-30.0, found=True)
    path = tmp_path / "report.json"
    path.write_bytes(encode_record(replace(record, documents=[record.documents[0], guilty])))
    failed = {check.name for check in verify_report(path).failed}
    assert {"keys", "controls"} <= failed


def test_a_name_that_the_tests_do_not_give_is_seen(tokenizer: Tokenizer, tmp_path: Path) -> None:
    record = with_accounts(tokenizer)
    assert "tenant:acme" in (record.documents[0].points_to or [])
    path = tmp_path / "report.json"
    for names in (["tenant:zenith"], []):
        framed = replace(record.documents[0], points_to=names)
        path.write_bytes(encode_record(replace(record, documents=[framed, *record.documents[1:]])))
        assert [check.name for check in verify_report(path).failed] == ["answer"]
