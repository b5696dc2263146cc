"""From tallies and documents to the scan's conclusions: the corpus' tests, discoveries, shares and controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from detect.corpus import rare, share
from detect.corpus.settings import ScanSettings
from detect.corpus.tally import Documents, Floats, Tally, no_documents
from detect.keyed.calibration import rank_log10, ranks_of_decoys_log10
from detect.keyed.decoys import LOG10_CONTRADICTION, contradicted, log10_agreement
from detect.keyed.rings import KeySet
from detect.keyed.scoring import as_drawn
from detect.laws import tails
from detect.laws.multiplicity import benjamini_hochberg_log10, e_benjamini_hochberg, holm_log10
from detect.records.detection import Input, SubkeyTally
from detect.records.scan import HISTOGRAM_BINS, Controls, Discoveries, Interval, ScanHypothesis, Shares
from detect.text.distinct import Mask
from watermark.formats.protocol import is_exact
from watermark.schemes.protocol import Scheme


@dataclass(frozen=True, eq=False)
class Found:
    """Which documents were discovered.

    Attributes
    ----------
    log10_adjusted
        Benjamini and Hochberg's adjusted p-value of each document (n,); NaN for those without tuples.
    discovered
        Whether it is at or below the rate (n,).
    by_evalue
        Discoveries by e-BH (n,).
    """

    log10_adjusted: Floats
    discovered: Mask
    by_evalue: Mask


def discover(documents: Documents, rate: float) -> Found:
    """Find documents at a false-discovery rate, among those that own tuples."""
    tested = documents.tuples > 0
    adjusted = np.full(len(documents), np.nan)
    adjusted[tested] = benjamini_hochberg_log10(documents.log10_pvalue[tested])
    by_evalue = np.zeros(len(documents), np.bool_)
    by_evalue[tested] = e_benjamini_hochberg(documents.log10_evalue[tested], rate)
    with np.errstate(invalid="ignore"):
        discovered = adjusted <= np.log10(rate)
    return Found(adjusted, discovered, by_evalue)


def discoveries(documents: Documents, found: Found, rate: float) -> Discoveries:
    """How many."""
    return Discoveries(
        rate=rate,
        tested=int((documents.tuples > 0).sum()),
        benjamini_hochberg=int(found.discovered.sum()),
        e_benjamini_hochberg=int(found.by_evalue.sum()),
        tokens=int(documents.tokens[found.discovered].sum()),
    )


def pooled_log10(scheme: Scheme, tuples: int, totals: ArrayLike) -> Floats:
    """Exact log10 p of sums over all sub-keys, which are independent: one test of tuples times sub-keys draws.

    Parameters
    ----------
    scheme
        Its law and unit.
    tuples
        How many each total is of.
    totals
        Integer totals of keys, shape (k, S) -> (k,).
    """
    sums = np.asarray(totals, dtype=np.int64)
    return tails.log10_sf_many(scheme.law, tuples * sums.shape[1], as_drawn(scheme, sums.sum(axis=1)))


def pooled_rank_log10(tally: Tally, number: int) -> float:
    """Log10 p of a foreign key's total over the sampled tuples: its rank among the decoys'."""
    decoys = tally.decoy_totals[:, 0]
    return float(rank_log10(np.sum(decoys >= tally.sampled_totals[number, 0]), len(decoys)))


def hypotheses(keys: KeySet, tally: Tally, pointed: dict[str, int]) -> list[ScanHypothesis]:
    """Each key's tests, Holm-adjusted over keys.

    Each key's p-value is its own: uniform or larger if this key had no say in the corpus, whoever else marked it. The
    contexts of the global key and of accounts are disjoint; accounts share theirs, but every key makes its own words
    there, derived apart from all others. Holm needs no independence between keys, so the chance of calling any key
    found that had no say is at most alpha, however many others are guilty.
    """
    rows = []
    for number, key in enumerate(keys.keys):
        scheme, n = keys.schemes[key.spec], int(tally.tuples[number])
        totals = tally.totals[number, : len(key.subkeys)].tolist()
        documents = int(tally.documents[number])
        smallest = tally.smallest[number, : min(rare.KEPT, documents)]
        if is_exact(scheme):
            log10_ps = tails.log10_sf_many(scheme.law, n, as_drawn(scheme, totals)).tolist()
            pooled = float(pooled_log10(scheme, n, [totals])[0])
            few = rare.log10_pvalue(smallest, documents) if documents else 0.0
        else:
            pooled = pooled_rank_log10(tally, number)
            log10_ps = [pooled]
            few = min(0.0, float(smallest[0] + np.log10(documents))) if documents else 0.0  # under any dependence
        rows.append((number, key, totals, documents, smallest, log10_ps, pooled, few))
    both = [min(0.0, min(pooled, few) + np.log10(2)) for *_, pooled, few in rows]
    adjusted = holm_log10(np.array(both))
    return [
        ScanHypothesis(
            key=str(key.name),
            spec=key.spec,
            tuples=int(tally.tuples[number]),
            documents=documents,
            subkeys=[
                SubkeyTally(subkey=i, total=int(total), log10_pvalue=log10_p)
                for i, (total, log10_p) in enumerate(zip(totals, log10_ps, strict=True))
            ],
            log10_pvalue_pooled=pooled,
            log10_pvalue_rare=few,
            smallest_log10_pvalues=smallest.tolist(),
            log10_pvalue=float(both[number]),
            log10_pvalue_adjusted=float(adjusted[number]),
            pointed=pointed.get(str(key.name), 0),
        )
        for number, key, totals, documents, smallest, log10_ps, pooled, few in rows
    ]


def histogram(log10_ps: Floats) -> list[int]:
    """Count p-values in equal bins of (0, 1]."""
    bins = np.ceil(10.0**log10_ps * HISTOGRAM_BINS).astype(np.int64) - 1
    counts: list[int] = np.bincount(np.clip(bins, 0, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS).tolist()
    return counts


def shares(keys: KeySet, tally: Tally, documents: Documents, reference: Documents | None) -> Shares:
    """How much of the corpus is marked: bounds from the corpus alone, and an interval where there is a reference."""
    first = keys.keys[0]
    scheme = keys.schemes[first.spec]
    tested = documents.tuples > 0
    if not is_exact(scheme):
        why = f"not bounded: documents and tuples are not independent under a key of {scheme.name}"
        unknown = Interval(low=0.0, estimate=None, high=None, confidence=0.95, method=why)
        return Shares(documents=unknown, tokens=unknown)
    if reference is None:
        tokens = share.least_marked_tokens(scheme.law, scheme.unit, tally.histogram, int(tally.tuples[0]))
    else:
        parts = [share.Excess(d.first_tuples, d.first_excess) for d in (documents, reference)]
        tokens = share.marked_tokens(scheme.law, scheme.unit, len(first.subkeys), parts[0], parts[1])
    return Shares(documents=share.marked_documents(documents.log10_pvalue[tested]), tokens=tokens)


@dataclass(frozen=True, eq=False)
class NullCorpus:
    """The true keys' test of a corpus that, as its owner says, nobody marked."""

    name: str
    log10_pvalue: float
    documents: Documents
    inputs: list[Input]


def controls(
    keys: KeySet, tally: Tally, documents: Documents, null: NullCorpus | None, settings: ScanSettings
) -> Controls:
    """What the same scan says where no mark can be."""
    scheme, n = keys.schemes[0], int(tally.decoy_tuples[0])
    subkeys = keys.specs[0].subkeys
    if is_exact(scheme):
        log10_ps = pooled_log10(scheme, n, tally.decoy_totals[:, :subkeys])
    else:
        log10_ps = ranks_of_decoys_log10(tally.decoy_totals[:, 0])
    own = documents.null_log10_pvalue[documents.tuples > 0]
    none = no_documents(keys.subkeys) if null is None else null.documents
    null_log10_ps = none.log10_pvalue[none.tuples > 0]
    return Controls(
        decoy_seed=settings.decoy_seed,
        decoy_tuples=n,
        decoy_log10_pvalues=log10_ps.tolist(),
        decoy_log10_agreement=log10_agreement(log10_ps),
        null_key_histogram=histogram(own),
        null_key_discoveries=_count(own, settings.rate),
        null_key_log10_pvalue=null_key_log10(own) if is_exact(scheme) else None,
        null_corpus=None if null is None else null.name,
        null_corpus_documents=len(null_log10_ps),
        null_corpus_log10_pvalue=None if null is None else null.log10_pvalue,
        null_corpus_histogram=histogram(null_log10_ps),
        null_corpus_discoveries=_count(null_log10_ps, settings.rate),
        null_corpus_inputs=[] if null is None else null.inputs,
    )


def _count(log10_ps: Floats, rate: float) -> int:
    return int((benjamini_hochberg_log10(log10_ps) <= np.log10(rate)).sum())


def null_key_log10(log10_ps: Floats) -> float:
    """log10 p-value of "documents' p-values under a key that nobody used are uniform or larger".

    The smaller of two tests, doubled: agreement in bulk, and whether the smallest few are too small, as they are where
    documents are listed under that key more often than chance allows.
    """
    if not len(log10_ps):
        return 0.0
    few = rare.log10_pvalue(np.sort(log10_ps)[: rare.KEPT], len(log10_ps))
    return float(min(0.0, min(log10_agreement(log10_ps), few) + np.log10(2)))


def refusal(keys: KeySet, tested: int, found: Controls) -> str | None:
    """Why no p-value may be given, or None: a failed control withholds the answer."""
    if not tested:
        return "nothing to test: no document has a token with a known context"
    if is_exact(keys.schemes[0]):  # ranks among decoys agree with them by construction
        of_documents = found.null_key_log10_pvalue or 0.0
        why = contradicted(found.decoy_log10_agreement) or contradicted(of_documents, "documents under a decoy key")
        if why is not None:
            return why
    return marked_control(found)


def marked_control(found: Controls) -> str | None:
    """Why a control corpus that is marked withholds the answer, or None.

    One in ten thousand control corpora looks so by chance, where the key had no say in it.
    """
    log10_p = found.null_corpus_log10_pvalue
    if log10_p is None or log10_p > LOG10_CONTRADICTION:
        return None
    return (
        f"the control corpus, which should hold no mark, is marked under the tested keys (p = 10^{log10_p:.1f}). "
        "Either it is the wrong control corpus, because marked text is in it: give one that was never near the "
        "generator (--null-corpus). Or the key was chosen by this text, and then no answer under this key means "
        "anything: use a key that was drawn at random, and committed to, before the text existed"
    )
