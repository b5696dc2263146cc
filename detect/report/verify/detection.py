"""Every number of a detection's record that follows from others, computed again without any key.

Each function returns a line that says what holds, raises `DyetraceError` with what doesn't, or `NotDone`. What takes
the key: whether the totals are those of the texts, which contexts are an account's, and the decoys' own p-values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detect.document.blind import NOTHING
from detect.document.pointing import blind_and_aware, level_per_test
from detect.keyed.calibration import bounded_log10, explanation, method_of, rank_log10, stages
from detect.keyed.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.keyed.scoring import as_drawn
from detect.laws.multiplicity import holm_log10, sidak_log10
from detect.laws.tails import log10_sf_pairs
from detect.records.assumptions import Assumption
from detect.records.detection import AwareHypothesis, DecoyRun, Document, Hypothesis, Record
from detect.records.key_name import KeyName
from detect.records.results import Check
from detect.records.text_assumptions import of_detection
from detect.report.verify import files
from detect.report.verify.checks import Floats, NotDone, check, close, each, refuse
from detect.report.verify.specs import specs, stated
from detect.report.verify.words import assumptions
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format

_EDGE = 1e-9  # of log10 p: numbers so near a limit may have been on its other side where they were computed
_TIE = 1e-6  # of log10 p: a decoy so near the key may have been taken for as extreme, or not
_CONTRADICTED = "the decoy keys contradict the test"


def checks(record: Record, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a detection's report, beside which no file lies."""
    read = [files.Read(source.name, source.sha256, source.bytes) for source in record.inputs]
    yield check("inputs", lambda: files.inputs(read, folder))
    yield from each({"specs": spec, "keys": keys, "answer": answer, "controls": controls}, record)
    said = record.calibration, explanation(record.spec.build_scheme(), by_rank=False)
    yield from assumptions(record, _ways(record), said)
    yield Check("totals", "not done", "whether the totals are those of the texts takes the key: `dyetrace recompute`")


def _ways(record: Record) -> Iterator[list[Assumption]]:
    total = len(record.documents)  # mostly none of them, or all, came as ids
    ids = sorted(range(total + 1), key=lambda number: min(number, total - number))
    yield from (of_detection(record, opened, number) for number, opened in itertools.product(ids, (False, True)))


def spec(record: Record) -> str:
    """The spec has the id on record; the arguments on record are those that the record goes by."""
    stated(record, alpha=record.alpha, decoys=record.decoy_count, decoy_seed=record.decoy_seed)
    return specs(record)


def keys(record: Record) -> str:
    """Each key's p-value follows from its totals (exact tail, Šidák over sub-keys), and the family's from those."""
    scheme = record.spec.build_scheme()
    weighted = not is_format(scheme) and record.spec.context_width == 0
    for document in record.documents:
        _family(record, document)
        for h in document.hypotheses:
            what = f"{document.name}, {h.key!r}"
            if not weighted:  # else a total's law takes the counts of the tokens
                totals = np.array([tally.total for tally in h.subkeys], dtype=np.int64)
                try:
                    law = log10_sf_pairs(scheme.law, np.full(len(totals), h.tuples), as_drawn(scheme, totals))
                except ValueError as error:
                    raise DyetraceError(f"{what}: no scheme gives these totals: {error}") from None
                close(f"{what}: p-values of the sub-keys", [tally.log10_pvalue for tally in h.subkeys], law)
            if method_of(scheme) == "ranked":
                _rank(document, h)
                continue
            paid = sidak_log10(bounded_log10(scheme, [tally.log10_pvalue for tally in h.subkeys]))
            close(f"{what}: p-value", [h.log10_pvalue], [paid])
        _adjusted(document, document.hypotheses, document.log10_pvalue)
        if document.aware is not None:
            bounds = [min(0.0, -h.log10_evalue) for h in document.aware.hypotheses]
            close(f"{document.name}: bounds by e-values", [h.log10_pvalue for h in document.aware.hypotheses], bounds)
            _adjusted(document, document.aware.hypotheses, document.aware.log10_pvalue)
    if weighted:
        raise NotDone("tails at width 0 take the texts: `dyetrace recompute`; all that follows from them was checked")
    return f"all tests of {len(record.documents):,} documents follow from their totals"


def _family(record: Record, document: Document) -> None:
    """The keys on record are such as can have been tested, on tuples that the document has."""
    names, scheme = [h.key for h in document.hypotheses], record.spec.build_scheme()
    if document.tested != record.documents[0].tested and document.keys_tested is not None:
        refuse(f"{document.name}: {document.tested:,} keys were tested there, {record.documents[0].tested:,} elsewhere")
    if document.refused is not None:
        # Where contexts are shared, those of a short text may all be those of keys that were not tested: it is said so,
        # though not by older releases.
        others = f"its tuples ({document.tuples:,}) belong to keys" in document.refused
        others |= record.made is None and (is_format(scheme) or record.spec.global_share not in (0, 1))
        if document.refused.startswith(NOTHING) and document.tuples and not others:
            refuse(f"{document.name} has {document.tuples:,} tuples, and yet it is said that nothing could be tested")
        return
    if not names or len(set(names)) < len(names):
        refuse(f"{document.name}: a document that is not refused must have a test of every key, once")
    if record.keys is None and len(names) != document.tested:
        refuse(f"{document.name}: {document.tested:,} keys were tested, and {len(names):,} are on record")
    if record.keys is not None and (
        document.tested != len(record.keys) or not set(names) <= {one.key for one in record.keys}
    ):
        refuse(f"{document.name}: its keys are not those of the report")
    if not document.tuples <= document.tokens:
        refuse(f"{document.name}: there must be no more tuples than tokens")
    share, owned = record.spec.global_share, 0
    for kind in (True, False):
        sizes = {h.tuples for h in document.hypotheses if KeyName.read(h.key).is_global == kind}
        if len(sizes) > 1 or any(size > document.tuples for size in sizes):
            refuse(f"{document.name}: keys of one kind must be tested on the same tuples, which the document has")
        if sizes and not is_format(scheme) and share == float(kind) and sizes != {document.tuples}:
            refuse(f"{document.name}: its key marks all of its {document.tuples:,} tuples")
        owned += sum(sizes)
    both = record.keys is None and {KeyName.read(h.key).is_global for h in document.hypotheses} == {True, False}
    if both and owned != document.tuples:
        refuse(f"{document.name}: {owned:,} tuples belong to a key, the document has {document.tuples:,}")
    for h in document.hypotheses:
        if [tally.subkey for tally in h.subkeys] != list(range(len(h.subkeys))):
            refuse(f"{document.name}: {h.key!r} must have its sub-keys in order")
        if not is_format(scheme) and len(h.subkeys) != record.spec.subkeys:
            refuse(f"{document.name}: {h.key!r} must have the totals of {record.spec.subkeys} sub-keys")


def _rank(document: Document, h: Hypothesis) -> None:
    """A rank's p-value follows from the decoys that were at least as extreme; where none was a bound may say more."""
    decoys = document.decoys
    if decoys is None or decoys.drawn is None:
        refuse(f"{document.name}: its p-value is a rank, and no decoys were drawn")
    ranked = float(rank_log10(decoys.rank - 1, decoys.drawn))
    if decoys.rank > 1 or h.log10_pvalue > ranked:
        close(f"{document.name}, {h.key!r}: rank", [h.log10_pvalue], [ranked])


def _adjusted(document: Document, tests: Sequence[Hypothesis | AwareHypothesis], log10_p: float | None) -> None:
    """Holm over all keys tested, of which the strongest stand here, and the smallest of what it gives."""
    if document.refused is not None:
        return
    adjusted = [h.log10_pvalue_adjusted for h in tests]
    close(f"{document.name}: adjusted p-values", adjusted, holm_log10([h.log10_pvalue for h in tests], document.tested))
    close(f"{document.name}: p-value", [math.nan if log10_p is None else log10_p], [min(adjusted, default=0.0)])


def answer(record: Record) -> str:
    """What was found, and what it points to, follows from the documents' p-values (Holm)."""
    documents = record.documents
    blind = holm_log10([0.0 if d.log10_pvalue is None else d.log10_pvalue for d in documents])
    aware = holm_log10([0.0 if d.aware is None else d.aware.log10_pvalue for d in documents])
    limit = math.log10(level_per_test(documents, record.alpha))
    given = [d for d in documents if d.refused is None]
    said = [math.nan if d.log10_pvalue_corpus is None else d.log10_pvalue_corpus for d in given]
    paid = [float(p) for p, d in zip(blind, documents, strict=True) if d.refused is None]
    close("p-values adjusted over the documents", said, paid)
    for document, *p in zip(documents, blind, aware, strict=True):
        if document.refused is not None:
            if document.found or document.points_to or document.log10_pvalue_corpus is not None:
                refuse(f"{document.name} is refused, and yet an answer is given")
            continue
        if document.found != (min(p) <= limit) and abs(min(p) - limit) > _EDGE * abs(limit):
            refuse(f"{document.name}: found is {document.found}, which does not fit its p-value and alpha")
    for document, names in zip(documents, _names(record), strict=True):
        if document.points_to is not None and set(document.points_to) != names:
            said_names = ", ".join(document.points_to) or "nobody"
            refuse(f"{document.name} points to {said_names}, its tests to {', '.join(sorted(names)) or 'nobody'}")
    return f"what was found in {len(documents):,} documents follows from their p-values"


def _names(record: Record) -> Iterator[set[str]]:
    for blind, aware in zip(*blind_and_aware(record.documents, record.alpha), strict=True):
        yield {*blind, *aware}


def controls(record: Record) -> str:
    """The decoys' agreement and the rank among them follow from their p-values; a contradiction was not passed over."""
    ranked = method_of(record.spec.build_scheme()) == "ranked"
    for document in record.documents:
        decoys = document.decoys
        contradicted = False
        if decoys is not None:
            ps = np.array(decoys.log10_pvalues)
            if len(ps) != record.decoy_count:
                refuse(f"{document.name}: {len(ps):,} decoys on record, where {record.decoy_count:,} were asked for")
            # Decoys that rank a key say nothing of each other: there is no agreement to be tested.
            agreement = 0.0 if ranked else log10_agreement(ps)
            close(f"{document.name}: agreement of the decoys", [decoys.log10_agreement], [agreement])
            contradicted = agreement < LOG10_CONTRADICTION
            _rank_among(document, decoys, ps, ranked)
        if decoys is None and document.refused is None and record.decoy_count:
            refuse(f"{document.name}: decoys were asked for, and none are on record")
        if contradicted and document.refused is None:
            refuse(f"{document.name}: the decoys contradict the test, and yet an answer is given")
        if not contradicted and (document.refused or "").startswith(_CONTRADICTED):
            refuse(f"{document.name}: an answer is withheld for decoys that agree with chance")
    return f"the decoys of {len(record.documents):,} documents agree with chance as the record says"


def _rank_among(document: Document, decoys: DecoyRun, ps: Floats, ranked: bool) -> None:
    if ranked:
        if decoys.drawn not in stages(len(ps), document.tuples) or not 1 <= decoys.rank <= 1 + decoys.drawn:
            refuse(f"{document.name}: rank {decoys.rank:,} among {decoys.drawn} decoys is none that this test gives")
        return
    if document.log10_pvalue is None:
        return
    least, most = ((ps <= document.log10_pvalue * factor).sum() for factor in (1 + _TIE, 1 - _TIE))
    if not 1 + least <= decoys.rank <= 1 + most:
        refuse(f"{document.name}: rank {decoys.rank:,} among decoys of which {most:,} are as extreme")
