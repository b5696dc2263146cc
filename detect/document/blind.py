"""The blind test of one document: needs the tokens and the keys, and no model.

H0: the key had no say in the document, neither in its text nor in the choice of it. Then, whatever the text is, the
words of its distinct (context, token) tuples are independent and uniform over the choice of the key, so the sum of
their statistics has exactly the scheme's null law. Where a foreign format's words are no match for that,
`detect.keyed.calibration` says what becomes of the law's tail.

A text that was picked by its p-value is not of H0: the most marked of 1,000 unmarked texts has p = 10^-3 or so. Line
"text" of `docs/validity.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np
import numpy.typing as npt

from detect.keyed.batch import CHUNK, Batch, TestedKey, document_sums
from detect.keyed.calibration import bounded_log10, method_of, ranked_log10, staged_rank, stages
from detect.keyed.decoys import contradicted, decoy_globals, decoy_rings, log10_agreement
from detect.keyed.owners import candidates, keys_to_test, tested_keys
from detect.keyed.scoring import as_drawn, tallies
from detect.laws import tails
from detect.laws.multiplicity import holm_log10, sidak_log10, sidak_of_smallest_log10
from detect.laws.tails import log10_sf_pairs
from detect.records.detection import DecoyRun, Hypothesis, SubkeyTally
from detect.records.key_name import KeyName
from detect.text.distinct import I64, Tuples
from watermark.formats.protocol import is_format
from watermark.keys import KeyRing, MarkingKey, SecretKey
from watermark.laws import in_nats
from watermark.rowkeys import selector_threshold, subkey
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]

NOTHING = "nothing to test"

_FEW_TOTALS = 1 << 9
"""Sums of one document up to which their tails are computed together; of more, each by itself in a compiled loop."""
WHOLE_FAMILY = 100
"""Keys of a detection up to which documents keep the numbers of all of them."""
_TIE = 1e-9  # of log10 p: equal sums are ties, whatever way their tails were computed and on whichever machine
_GROUP = 1 << 18  # sums of a group of keys, which a thread takes at a time
_WORTH_THREADS = 1 << 20  # words from which on starting threads pays


@dataclass(frozen=True, slots=True)
class BlindTest:
    """The result of the blind test.

    Attributes
    ----------
    hypotheses
        One for each key tested, or those that are kept.
    log10_pvalue
        That none of the keys marked the document (the smallest Holm-adjusted p-value); 0 when nothing was tested.
    decoys
        The same under decoy keys; None when none were asked for.
    keys
        How many keys were tested; of a large family not every one is among ``hypotheses``.
    tuples
        The most that any key was tested on.
    sums
        Tuples and each sub-key's total of every key, (K, 1 + S) int64; None of foreign formats.
    """

    hypotheses: list[Hypothesis]
    log10_pvalue: float
    decoys: DecoyRun | None
    keys: int
    tuples: int
    sums: I64 | None = None

    @property
    def refused(self) -> str | None:
        """Why the p-value must not be printed, or None."""
        if not self.tuples:
            return f"{NOTHING}: the document has no token with a known context"
        return None if self.decoys is None else contradicted(self.decoys.log10_agreement)


def log10_pvalues(scheme: Scheme, tuples: Tuples, sums: I64) -> Floats:
    """Exact log10 p-values of sums over these tuples, shape (k,) -> (k,)."""
    law = scheme.law
    if in_nats(law):
        return np.asarray(tails.log10_sf_many(law, len(tuples), sums * scheme.unit))
    if tuples.width == 0:
        return np.asarray(tails.log10_sf_weighted_many(law, tuples.counts, sums))  # type: ignore[arg-type]
    return np.asarray(tails.log10_sf_many(law, len(tuples), sums))


def law_tails(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> tuple[I64, I64, Floats]:
    """Tuples that count, their total, and the law's log10 tail of it, under each key: shapes (len(keys),)."""
    ns, sums = tallies(scheme, keys, tuples)
    if np.all(ns == len(tuples)):
        return ns, sums, log10_pvalues(scheme, tuples, sums)
    return ns, sums, log10_sf_pairs(scheme.law, ns, as_drawn(scheme, sums))


def blind_test(
    spec: WatermarkSpec,
    ring: KeyRing,
    tuples: Tuples,
    *,
    decoy_seed: str = "dyetrace",
    decoy_count: int = 100,
) -> BlindTest:
    """Test one document for every key of the ring.

    Parameters
    ----------
    spec, ring
        The watermark and the keys to test.
    tuples
        `distinct_tuples` of the document.
    decoy_seed, decoy_count
        Public seed and number of the decoy keys.
    """
    return Family(spec, ring, decoy_seed=decoy_seed, decoy_count=decoy_count).test([tuples])[0]


def _ranked_test(
    spec: WatermarkSpec, ring: KeyRing, scheme: Scheme, tuples: Tuples, decoy_seed: str, decoy_count: int
) -> BlindTest:
    """The test of a format whose words hang together: its one key's rank among decoys, by the law's tail of each."""
    (candidate,) = candidates(spec, ring, tuples)
    ns, sums, own = law_tails(scheme, [candidate.key], tuples)
    drawn: list[Floats] = []

    def decoy_tails(first: int, last: int) -> Floats:
        drawn.append(law_tails(scheme, decoy_globals(decoy_seed, last, spec, first=first), tuples)[2])
        return drawn[-1]

    exceeding, decoys = staged_rank(float(own[0]), decoy_tails, stages(decoy_count, len(tuples)))
    log10_p = ranked_log10(scheme, candidate.key, tuples, exceeding, decoys)
    hypothesis = Hypothesis(
        key=str(candidate.name),
        tuples=int(ns[0]),
        subkeys=[SubkeyTally(subkey=0, total=int(sums[0]), log10_pvalue=float(own[0]))],
        log10_pvalue=log10_p,
        log10_pvalue_adjusted=log10_p,
    )
    run = DecoyRun(log10_pvalues=drawn[0].tolist(), rank=1 + exceeding, log10_agreement=0.0, drawn=decoys)
    return BlindTest([hypothesis], log10_p, run, keys=1, tuples=int(ns[0]))


def _foreign_test(
    spec: WatermarkSpec, ring: KeyRing, scheme: Scheme, tuples: Tuples, decoy_seed: str, decoy_count: int
) -> BlindTest:
    """The test of a foreign format, each of whose keys may count other tuples."""
    if method_of(scheme) == "ranked" and len(tuples):
        return _ranked_test(spec, ring, scheme, tuples, decoy_seed, decoy_count)
    (candidate,) = candidates(spec, ring, tuples)
    ns, sums, log10_ps = law_tails(scheme, [candidate.key], tuples)
    hypotheses = _hypotheses(scheme, [candidate.name], ns, sums[:, None], log10_ps[:, None])
    log10_p = hypotheses[0].log10_pvalue_adjusted
    decoys = None
    if decoy_count and len(tuples):
        keys = decoy_globals(decoy_seed, decoy_count, spec)
        bounded = bounded_log10(scheme, law_tails(scheme, keys, tuples)[2])
        decoys = _decoy_run(np.array([sidak_log10([one]) for one in bounded]), log10_p)
    return BlindTest(hypotheses, log10_p, decoys, keys=1, tuples=int(ns[0]))


def _hypotheses(scheme: Scheme, names: Sequence[KeyName], ns: I64, sums: I64, log10_ps: Floats) -> list[Hypothesis]:
    """All keys of a family from their tuples (K,), and the sums and law's tails of their sub-keys (K, S)."""
    own = [sidak_log10(bounded_log10(scheme, row)) for row in log10_ps]
    return [
        _hypothesis(name, int(n), totals, row, log10_p, float(adjusted))
        for name, n, totals, row, log10_p, adjusted in zip(
            names, ns, sums, log10_ps, own, holm_log10(np.array(own)), strict=True
        )
    ]


def _hypothesis(
    name: KeyName, n: int, totals: I64, log10_ps: Floats, log10_pvalue: float, log10_adjusted: float
) -> Hypothesis:
    return Hypothesis(
        key=str(name),
        tuples=n,
        subkeys=[
            SubkeyTally(subkey=index, total=int(total), log10_pvalue=float(log10_p))
            for index, (total, log10_p) in enumerate(zip(totals, log10_ps, strict=True))
        ],
        log10_pvalue=log10_pvalue,
        log10_pvalue_adjusted=log10_adjusted,
    )


def _decoy_run(log10_ps: Floats, log10_p: float) -> DecoyRun:
    rank = 1 + int(np.sum(log10_ps <= log10_p * (1 - _TIE)))
    return DecoyRun(log10_pvalues=log10_ps.tolist(), rank=rank, log10_agreement=log10_agreement(log10_ps))


class Family:
    """The keys of a ring and its decoys, made ready for any number of documents.

    Parameters
    ----------
    spec, ring
        The watermark and the keys to test.
    decoy_seed, decoy_count
        Public seed and number of the decoy keys.
    decoy_accounts
        How many accounts' keys each decoy has; None: as many as are tested (`accounts_of_decoys` says how many do).
    keep
        Of a family of more than `WHOLE_FAMILY` keys, how many documents keep: the strongest, and any others whose
        adjusted p-value is at or below ``log10_alpha``. None keeps all.

    Raises
    ------
    DyetraceError
        There is no key to test.
    """

    def __init__(
        self,
        spec: WatermarkSpec,
        ring: KeyRing,
        *,
        decoy_seed: str,
        decoy_count: int,
        decoy_accounts: int | None = None,
        keep: int | None = None,
        log10_alpha: float = 0.0,
    ) -> None:
        self._spec, self._ring, self._scheme = spec, ring, spec.build_scheme()
        self._seed, self._decoys = decoy_seed, decoy_count
        self.names = tuple(keys_to_test(spec, ring))
        self._keep = None if keep is None or len(self.names) <= WHOLE_FAMILY else keep
        self._log10_alpha = log10_alpha
        self._foreign = is_format(self._scheme)
        if not self._foreign:
            self._keys = _tested(spec, ring)
            decoys = decoy_rings(decoy_seed, decoy_count, spec, ring, accounts=decoy_accounts)
            self._families = [(decoy.selector, _tested(spec, decoy)) for decoy in decoys]

    @property
    def sums(self) -> int:
        """How many sums each document has, under the true keys and the decoys'."""
        decoys = self._decoys if self._foreign else sum(len(family) for _, family in self._families)
        return (len(self.names) + decoys) * self._spec.subkeys

    @property
    def keeps_all(self) -> bool:
        """Whether every key of every document is kept."""
        return self._keep is None

    def test(self, parts: Sequence[Tuples]) -> list[BlindTest]:
        """Test documents, given by their distinct tuples; how many are tested at a time changes no number of theirs."""
        if self._foreign:
            test = partial(_foreign_test, self._spec, self._ring, self._scheme)
            return [test(tuples, self._seed, self._decoys) for tuples in parts]
        batch = Batch.of(parts)
        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            counts, sums, log10_ps = self._score(pool, batch, parts, self._keys)
            decoys = self._decoy_log10_pvalues(pool, batch, parts)
        owners = np.array([key.name.is_global for key in self._keys], dtype=bool)
        return [
            self._blind_test(
                np.where(owners, counts[True][d], counts[False][d]),
                sums[:, :, d],
                log10_ps[:, :, d],
                decoys[:, d] if len(tuples) and self._decoys else None,
            )
            for d, tuples in enumerate(parts)
        ]

    def _score(
        self, pool: ThreadPoolExecutor, batch: Batch, parts: Sequence[Tuples], keys: Sequence[TestedKey]
    ) -> tuple[dict[bool, I64], I64, Floats]:
        """Counts by owner (D,), sums and their law's log10 tails (K, S, D)."""
        size = max(1, _GROUP // max(1, len(parts) * self._spec.subkeys))
        words, threads = len(batch.tuples) * len(keys) * self._spec.subkeys, numba.get_num_threads()
        worth = words >= _WORTH_THREADS and threads > 1
        if worth and len(batch.tuples) < threads * CHUNK:  # else all keys share what is found out of a tuple's context
            size = min(size, -(-len(keys) // threads))
        groups = [keys[start : start + size] for start in range(0, len(keys), size)]
        spans = batch.spans(-(-threads // len(groups))) if worth else [batch]

        def score(task: tuple[Sequence[TestedKey], Batch]) -> tuple[dict[bool, I64], I64]:
            group, span = task
            return document_sums(span, self._spec, self._scheme, self._ring.selector, group)

        scored = list((pool.map if worth else map)(score, [(group, span) for group in groups for span in spans]))
        by_group = [scored[start : start + len(spans)] for start in range(0, len(scored), len(spans))]
        sums = np.concatenate([np.sum([one for _, one in part], axis=0) for part in by_group])
        counted = [{owner: np.sum([n[owner] for n, _ in part], axis=0) for owner in (True, False)} for part in by_group]
        counts = {owner: np.max([one[owner] for one in counted], axis=0) for owner in (True, False)}
        log10_ps = np.empty(sums.shape)
        for owner in (True, False):
            mine = np.flatnonzero([key.name.is_global == owner for key in keys])
            if len(mine):
                log10_ps[mine] = self._tails(pool, parts, counts[owner], sums[mine])
        return counts, sums, log10_ps

    def _tails(self, pool: ThreadPoolExecutor, parts: Sequence[Tuples], ns: I64, sums: I64) -> Floats:
        """The law's log10 tails of sums (K, S, D) over ``ns`` (D,) tuples of each document."""
        scheme, (keys, subkeys, documents) = self._scheme, sums.shape
        if self._spec.context_width == 0 or keys * subkeys <= _FEW_TOTALS:
            weighted = self._spec.context_width == 0
            found = np.empty(sums.shape)
            for d in range(documents):
                if weighted:
                    found[:, :, d] = log10_pvalues(scheme, parts[d], sums[:, :, d])
                else:
                    found[:, :, d] = tails.log10_sf_many(scheme.law, int(ns[d]), as_drawn(scheme, sums[:, :, d]))
            return found
        step = max(1, _GROUP // (subkeys * documents))
        one = partial(_pair_tails, scheme, ns)
        return np.concatenate(list(pool.map(one, [sums[start : start + step] for start in range(0, keys, step)])))

    def _decoy_log10_pvalues(self, pool: ThreadPoolExecutor, batch: Batch, parts: Sequence[Tuples]) -> Floats:
        """Each document's p-value under each decoy's keys, all of them paid for: (decoys, D)."""
        if not self._families or not len(batch.tuples):
            return np.zeros((len(self._families), len(parts)))
        spec = self._spec
        if selector_threshold(spec) in (0, 2**32):  # decoys differ by their keys alone
            keys = [key for _, family in self._families for key in family]
            _, _, log10_ps = self._score(pool, batch, parts, keys)
            smallest = log10_ps.reshape(len(self._families), -1, len(parts)).min(axis=1)
        else:
            smallest = np.array(list(pool.map(partial(self._smallest_tail, batch), self._families)))
        paid = np.log10(np.array([len(family) for _, family in self._families]))
        return np.asarray(np.minimum(sidak_of_smallest_log10(smallest, spec.subkeys) + paid[:, None], 0.0))

    def _smallest_tail(self, batch: Batch, family: tuple[SecretKey, list[TestedKey]]) -> Floats:
        """The smallest log10 tail of a decoy's sums in each document, (D,)."""
        selector, keys = family
        counts, sums = document_sums(batch, self._spec, self._scheme, selector, keys)
        ns = np.array([counts[key.name.is_global] for key in keys])
        log10_ps = log10_sf_pairs(self._scheme.law, ns[:, None, :], as_drawn(self._scheme, sums))
        return np.asarray(log10_ps.min(axis=(0, 1)))

    def _blind_test(self, ns: I64, sums: I64, log10_ps: Floats, decoys: Floats | None) -> BlindTest:
        """One document's test, from tuples (K,), sums and tails (K, S) of the true keys and the decoys' p-values."""
        most = int(ns.max(initial=0))
        if self._keep is None:
            hypotheses = _hypotheses(self._scheme, self.names, ns, sums, log10_ps)
            log10_p = min((h.log10_pvalue_adjusted for h in hypotheses), default=0.0)
        else:
            hypotheses, log10_p = self._strongest(self._keep, ns, sums, log10_ps)
        return BlindTest(
            hypotheses,
            log10_p,
            None if decoys is None else _decoy_run(decoys, log10_p),
            keys=len(self.names),
            tuples=most,
            sums=np.concatenate([ns[:, None], sums], axis=1),
        )

    def _strongest(self, keep: int, ns: I64, sums: I64, log10_ps: Floats) -> tuple[list[Hypothesis], float]:
        """The strongest keys and all that might be named, in the order of the keys, and the family's p-value.

        Šidák's correction is the same for every key and Holm's goes from the smallest p-value up, so what a key's
        numbers are can be told from the keys before it.
        """
        order = np.argsort(log10_ps.min(axis=1), kind="stable")
        kept, before = {}, -math.inf
        for rank, number in enumerate(order.tolist()):
            own = sidak_log10(log10_ps[number])
            before = max(before, own + math.log10(len(order) - rank))
            adjusted = min(before, 0.0)
            if rank >= keep and adjusted > self._log10_alpha:
                break
            kept[number] = _hypothesis(
                self.names[number], int(ns[number]), sums[number], log10_ps[number], own, adjusted
            )
        return [kept[number] for number in sorted(kept)], min(h.log10_pvalue_adjusted for h in kept.values())


def _pair_tails(scheme: Scheme, ns: I64, sums: I64) -> Floats:
    return log10_sf_pairs(scheme.law, ns, as_drawn(scheme, sums))


def _tested(spec: WatermarkSpec, ring: KeyRing) -> list[TestedKey]:
    return [
        TestedKey(name, 0, tuple(subkey(key, index) for index in range(spec.subkeys)))
        for name, key in tested_keys(spec, ring).items()
    ]
