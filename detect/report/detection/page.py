"""The record as one HTML page: no scripts, no network, nothing but the record in it.

Every string goes through `clean` (jinja2's finalize) and is escaped (autoescape); what is built here as
markup is built from numbers, fixed words and escaped strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup, escape

from detect.records.detection import AwareHypothesis, Document, Hypothesis, Record, SubkeyTally, TokenView
from detect.records.written import clean, format_e, format_level, format_p, format_time, key_label
from detect.report.checking import TITLE, AnyRecord, how_to_check, made_facts
from detect.report.controls import decoys_line
from detect.report.detection.method import method, references
from detect.report.detection.text import several_keys, summary, told
from detect.report.paper import plots
from detect.report.paper.narrow import labelled
from detect.report.runs import Runs, to_html
from detect.report.wording import (
    Score,
    Verdict,
    assumption_lines,
    best_aware,
    best_hypothesis,
    limit_per_test,
    named_keys,
    recompute_command,
    score,
)
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Law, WeightedBits
from watermark.spec import WatermarkSpec

ROWS = 1000  # of the table of documents
DETAILS = 20  # up to this many documents are all shown in full; of more, those that have a token view
PLOTTED = 8  # from this many documents on their p-values are plotted
KEYS = 12  # shown of each document, best first
SUBKEYS = 8  # shown of each key, best first
_NAME = 300
_ITEMS = 50  # of an argument that is a list
# A token is tinted by the smallest of these that its p-value reaches. Without the key at most that share is.
LEVELS = (0.3, 0.1, 0.03, 0.01, 0.001)
_DOT = "\N{MIDDLE DOT} "  # stands for a token that is not quoted
_GREEN_LEVEL = 3  # tint of a token on the green list


def render_html(record: Record) -> str:
    """Render the record as one self-contained HTML page."""
    entries = [_entry(record, document, answer, number) for number, document, answer in told(record).rows]
    scheme = record.spec.build_scheme()
    return drawn(
        "page.html.j2",
        record=record,
        **shared(record),
        summary=summary(record),
        sections=method(record),
        references=references(),
        law=_law_kind(scheme.law),
        units_per_nat=round(1 / scheme.unit),
        entries=entries[:ROWS],
        hidden=max(0, len(entries) - ROWS),
        details=[e for e in entries if e.document.view is not None or len(entries) <= DETAILS],
        named_keys=named_keys,
        several_keys=several_keys(record),
        aware=any(d.aware for d in record.documents),
        document_plot=_document_plot(record),
        spec_json=pretty_json(record.spec),
        command=Markup(escape(recompute_command(record))),
        versions=sorted(record.versions.items()),
        arguments=[(name, shown_argument(value)) for name, value in sorted(record.arguments.items())],
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the page says of one document."""

    ident: str
    document: Document
    verdict: Verdict
    best: Hypothesis | None
    aware: AwareHypothesis | None
    score: Score | None
    keys: list[tuple[Hypothesis, list[SubkeyTally]]]
    decoys: tuple[Markup, Markup] | None
    agreement: Runs
    text: Markup | None
    shares: list[tuple[str, float, float]]


def _entry(record: Record, document: Document, answer: Verdict, number: int) -> Entry:
    best = best_hypothesis(document)
    ident = f"d{number + 1}"
    law = record.spec.build_scheme().law
    view = document.view
    detailed = view is not None or len(record.documents) <= DETAILS
    return Entry(
        ident=ident,
        document=document,
        verdict=answer,
        best=best,
        aware=best_aware(document),
        score=score(record.spec, document, best) if best else None,
        keys=_keys(document) if detailed else [],
        decoys=_decoy_plots(document, ident) if detailed else None,
        agreement=_agreement(document),
        text=None if view is None else Markup("").join(_tokens(view, law, record.quotes)),
        shares=[] if view is None else list(_shares(view, law)),
    )


def _agreement(document: Document) -> Runs:
    decoys = document.decoys
    if decoys is None or decoys.drawn is not None:  # ranks agree with decoys by construction
        return ()
    return decoys_line(len(decoys.log10_pvalues), decoys.log10_agreement)[1]


def _document_plot(record: Record) -> Markup | None:
    tested = [(d.log10_pvalue, d.found) for d in record.documents if d.log10_pvalue is not None]
    return plots.document_plot(tested, limit_per_test(record), "all") if len(tested) >= PLOTTED else None


def _keys(document: Document) -> list[tuple[Hypothesis, list[SubkeyTally]]]:
    if document.refused is not None:
        return []
    keys = sorted(document.hypotheses, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue))[:KEYS]
    return [(key, sorted(key.subkeys, key=lambda s: s.log10_pvalue)[:SUBKEYS]) for key in keys]


def _decoy_plots(document: Document, ident: str) -> tuple[Markup, Markup] | None:
    """Draw the decoys, with the true key where the document has a p-value that may be shown."""
    decoys = document.decoys
    if decoys is None or not decoys.log10_pvalues:
        return None
    true = document.log10_pvalue
    if decoys.drawn is not None and document.hypotheses:  # ranks: shown by the law's tails that are compared
        true = document.hypotheses[0].subkeys[0].log10_pvalue
    return (
        plots.decoy_strip(decoys.log10_pvalues, true, f"{ident}s"),
        plots.decoy_curve(decoys.log10_pvalues, true, f"{ident}c"),
    )


def _level(p: float, law: Law) -> int:
    if isinstance(law, Bernoulli):
        return _GREEN_LEVEL if p < 1 else 0
    return sum(p <= level for level in LEVELS)


def _tokens(view: TokenView, law: Law, quoted: bool) -> Iterator[Markup]:
    """Yield the text as spans, those of tokens that were not counted joined; without quotes a dot for each token."""
    texts = view.texts if quoted else [_DOT] * len(view.texts)
    pairs = zip(texts, view.pvalues, strict=True)
    for uncounted, run in groupby(pairs, key=lambda pair: pair[1] is None):
        if uncounted:
            yield Markup('<span class="skip">{}</span>').format(_piece("".join(text for text, _ in run)))
            continue
        for text, p in run:
            assert p is not None
            shown = format_p(math.log10(p) if p > 0 else -math.inf)
            yield Markup('<span class="t{}" title="p = {}">{}</span>').format(_level(p, law), shown, _piece(text))


def _piece(text: str) -> Markup:
    """Escape a token, its line breaks and tabs kept and line breaks made visible."""
    lines = text.replace("\r\n", "\n").split("\n")
    escaped = [Markup("\t").join(escape(clean(part)) for part in line.split("\t")) for line in lines]
    return Markup('<i class="nl">↵</i>\n').join(escaped)


def _shares(view: TokenView, law: Law) -> Iterator[tuple[str, float, float]]:
    """Yield what is counted, its share here, and its largest expected share without the key."""
    counted = [p for p in view.pvalues if p is not None]
    if not counted:
        return
    if isinstance(law, Bernoulli):
        yield "on the green list", sum(p < 1 for p in counted) / len(counted), law.gamma
        return
    for level in LEVELS:
        yield f"p ≤ {level:g}", sum(p <= level for p in counted) / len(counted), level


def _law_kind(law: Law) -> str:
    kinds = {
        Exponential: "exponential",
        Hypoexponential: "hypoexponential",
        Bernoulli: "bernoulli",
        WeightedBits: "bits",
    }
    return kinds.get(type(law), "lattice")


def shared(record: AnyRecord) -> dict[str, Any]:
    """What pages of all kinds of reports show in the same way: who made it, how it is checked, what it assumes."""
    return {
        "made": made_facts(record),
        "check_title": TITLE,
        "check_lines": how_to_check(record),
        "assumptions": assumption_lines(record.assumptions),
    }


def pretty_json(spec: WatermarkSpec) -> Markup:
    """Write a spec as indented JSON, every line escaped."""
    text = msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=2).decode()
    return Markup("\n").join(escape(clean(line)) for line in text.split("\n"))


def shown_argument(value: Any) -> str:
    """Write the value of an option."""
    if isinstance(value, list):
        more = f" and {len(value) - _ITEMS:,} more, all in the JSON record" if len(value) > _ITEMS else ""
        return ", ".join(value[:_ITEMS]) + more
    return str(value)


def _finalize(value: Any) -> Any:
    """Clean every string that a template puts out, other than finished markup."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _level_text(alpha: float) -> Markup:
    return _power(format_level(alpha))


def _power(text: str) -> Markup:
    base, separator, exponent = text.partition("^")
    if not separator:
        return Markup(escape(text))
    return Markup('<span class="num">{}<sup>{}</sup></span>').format(base, exponent.replace("-", "\N{MINUS SIGN}"))


def _p(log10_p: float | None) -> Markup:
    return Markup("&ndash;") if log10_p is None else _power(format_p(log10_p))


def _e(log10_e: float) -> Markup:
    return _power(format_e(log10_e))


def drawn(name: str, **values: Any) -> str:
    """Draw a page by its template; its tables can be read on a narrow screen as well (`narrow`)."""
    return labelled(_template(name).render(**values))


def _template(name: str) -> jinja2.Template:
    """Load a page's template: autoescaped, every string cleaned, the filters of all reports at hand."""
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_finalize,
        loader=jinja2.FunctionLoader(lambda file: (files("detect.report") / file).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "p": _p,
        "e": _e,
        "n": "{:,}".format,
        "percent": "{:.1%}".format,
        "level": _level_text,
        "time": format_time,
        "label": key_label,
        "name": lambda text: clean(text, _NAME),
        "runs": to_html,
        "capital": lambda text: text[:1].upper() + text[1:],
    }
    return environment.get_template(name)
