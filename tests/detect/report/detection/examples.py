"""Records of detections made by hand, some of them by somebody who means harm."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec

from detect.laws.multiplicity import holm_log10
from detect.records.detection import (
    AwareHypothesis,
    AwareResult,
    DecoyRun,
    Document,
    Hypothesis,
    Input,
    Record,
    SubkeyTally,
    TokenView,
)
from detect.records.made import Made
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></pre><iframe src=https://evil.example>",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "\u202egnp.exe\u2066\u200b\u2028",
    "[bold red]markup[/] [link=https://evil.example]x[/link] :smile:",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)//\x00",
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}" * 90,
]
HEX = "0123456789abcdef" * 4


def make_spec(**changes: Any) -> WatermarkSpec:
    return WatermarkSpec(vocabulary_size=49152, tokenizer=HEX[:32], key_fingerprint=HEX[:32], **changes)


def make_view(texts: list[str], seed: int, marked: bool = True) -> TokenView:
    draw = random.Random(seed)
    power = 0.35 if marked else 1.0
    pvalues = [None if i < 2 or i % 17 == 9 else draw.random() ** (1 / power) for i in range(len(texts))]
    return TokenView(hypothesis="global", subkey=2, texts=texts, pvalues=pvalues)


def make_document(
    name: str = "answer.txt",
    log10_p: float | None = -38.24,
    *,
    found: bool = True,
    tenants: tuple[str, ...] = (),
    aware: float | None = None,
    refused: str | None = None,
    texts: list[str] | None = None,
    decoy_count: int = 100,
    tuples: int = 148,
    seed: int = 1,
) -> Document:
    draw = random.Random(seed)
    decoys = [math.log10(draw.random()) for _ in range(decoy_count)]
    strength = 1 + math.sqrt(2 * 2.3 * max(0.0, -(log10_p or 0.0)) / tuples)
    keys = ["global", *(f"tenant:{tenant}" for tenant in tenants)]
    hypotheses = [
        Hypothesis(
            key=key,
            tuples=tuples // (2 if tenants else 1),
            subkeys=[
                SubkeyTally(
                    subkey=s,
                    total=int((strength if s == 2 else 1.0) * 2**24 * tuples // (2 if tenants else 1)),
                    log10_pvalue=(log10_p or 0.0) * (1 - 0.2 * i) if s == 2 else -0.1 * (s + 1),
                )
                for s in range(4)
            ],
            log10_pvalue=min(0.0, (log10_p or 0.0) * (1 - 0.2 * i)),
            log10_pvalue_adjusted=min(0.0, (log10_p or 0.0) * (1 - 0.2 * i)),
        )
        for i, key in enumerate(keys)
    ]
    return Document(
        name=name,
        sha256=HEX,
        tokens=tuples + 4,
        prompt_tokens=None,
        tuples=tuples,
        hypotheses=hypotheses,
        log10_pvalue=None if refused else log10_p,
        log10_pvalue_corpus=None if refused else log10_p,
        decoys=DecoyRun(log10_pvalues=decoys, rank=1 + sum(d <= (log10_p or 0.0) for d in decoys), log10_agreement=-0.3)
        if decoy_count
        else None,
        aware=None
        if aware is None
        else AwareResult(
            model="demo model SmolLM2-135M-Instruct",
            hypotheses=[
                AwareHypothesis(
                    key=key,
                    positions=tuples,
                    log10_evalue=aware - 3 * i,
                    log10_pvalue=min(0.0, 3 * i - aware),
                    log10_pvalue_adjusted=min(0.0, 3 * i - aware),
                )
                for i, key in enumerate(keys)
            ],
            log10_pvalue=min(0.0, -aware),
            decoy_log10_evalues=[-1.5 - draw.random() for _ in decoys],
        ),
        refused=refused,
        found=found and refused is None,
        view=None if texts is None else make_view(texts, seed, found),
    )


def make_record(*documents: Document, **changes: Any) -> Record:
    corpus = holm_log10([d.log10_pvalue or 0.0 for d in documents])
    documents = tuple(
        msgspec.structs.replace(d, log10_pvalue_corpus=None if d.log10_pvalue is None else float(p))
        for d, p in zip(documents, corpus, strict=True)
    )
    spec = changes.pop("spec", None) or make_spec()
    fields: dict[str, Any] = {
        "created": "2026-02-03T04:05:06+00:00",
        "arguments": {"source": "suspects.jsonl", "tenants": ["acme", "b c"], "limit": None, "aware": False},
        "versions": {"dyetrace": "0.1.0", "python": "3.11.7"},
        "spec": spec,
        "spec_id": spec.spec_id,
        "key_fingerprint": HEX[:32],
        "commitment": Commitment(
            sha256=HEX, spec_id=spec.spec_id, key_fingerprint=HEX[:32], created="2025-11-02T09:00:00+00:00"
        ),
        "tests": ["blind"],
        "alpha": 1e-6,
        "decoy_seed": "dyetrace",
        "decoy_count": 100,
        "encoder": "tokenizers 0.22",
        "inputs": [Input(name="suspects.jsonl", sha256=HEX, bytes=123456)],
        "documents": list(documents),
        "made": Made(code_sha256=HEX, examiner="N. N., Institute of Dyes", case="2026/7 owner against suspect"),
    }
    return Record(**(fields | changes))


def hostile_record(text: str) -> Record:
    document = make_document(text, tenants=(text,), aware=12.0, texts=[text, "\n", text, " end"] * 9)
    refused = make_document(text, refused=text)
    return make_record(
        document,
        refused,
        msgspec.structs.replace(document, found=False, log10_pvalue=-1.0),
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        arguments={text: text, "source": text, "list": [text]},
        versions={text: text, "dyetrace": text},
        spec_id=text,
        key_fingerprint=text,
        tests=[text],
        decoy_seed=text,
        encoder=text,
        inputs=[Input(name=text, sha256=text, bytes=1)],
        commitment=Commitment(sha256=text, spec_id=text, key_fingerprint=text, created=text),
    )


def shown_records() -> dict[str, Record]:
    texts = ["The", " dye", " is", "\n\n", "\tred", "."] * 4
    many = [make_document(f"corpus.jsonl:{i}", -8.0 - i, tenants=("acme",), seed=i) for i in range(70)]
    return {
        "marked": make_record(make_document(texts=texts)),
        "unmarked": make_record(make_document(log10_p=-0.3, found=False, texts=texts), commitment=None),
        "refused": make_record(make_document(refused="the decoy keys contradict the test")),
        "aware": make_record(make_document(texts=texts, aware=44.0, tenants=("acme",))),
        "many": make_record(*many, spec=make_spec(global_share=0.5)),
        "none": make_record(inputs=[]),
        "no decoys": make_record(make_document(decoy_count=0), decoy_count=0),
        "green list": make_record(make_document(texts=texts), spec=make_spec(scheme="green_list")),
        "unigram": make_record(make_document(), spec=make_spec(scheme="green_list", context_width=0)),
        "tournament": make_record(make_document(texts=texts, aware=9.0), spec=make_spec(scheme="tournament")),
    }
