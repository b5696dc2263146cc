"""What a server's answers say of the keys that should have marked them: exact tests over all answers together.

The null hypothesis is that this key had no say in the answers: the server did not use it, and no prompt held text that
it marked. A tuple counts once over all answers (engines begin many alike), for the first answer that has it; so, given
the answers, their p-values are independent, and combine by Fisher's method without any approximation: the sum of -ln p
of n answers is at most Gamma(n, 1). Each answer's own p-value pays for the choice among its sub-keys.

References
----------
R. A. Fisher, "Statistical Methods for Research Workers", section 21.1, 4th edition, 1932.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detect.document.blind import blind_test
from detect.keyed.decoys import decoy_rings
from detect.keyed.held import held_keys
from detect.keyed.owners import tested_keys
from detect.keyed.rings import ring_of
from detect.laws import tails
from detect.records.server_check import AnswerFound, KeyFound
from detect.server.answers import Served
from detect.text.distinct import I64, Tuples, distinct_tuples, tuple_fingerprints
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.keys import AnyKey, KeyRing, SecretKey
from watermark.keys.foreign import ForeignKey
from watermark.laws import Exponential
from watermark.rowkeys import selector_threshold
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]

CONTROLS = 20
"""Keys that must show nothing, beside the accounts that the operator names."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a check.

    Attributes
    ----------
    ring
        What must be found: the global key, and the account's.
    others
        Rings whose keys must show nothing: other accounts of the same owner, or keys that nobody used.
    names
        What ``others`` are called, one for each.
    """

    ring: KeyRing
    others: list[KeyRing]
    names: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What answers say of keys: names (k,), distinct tuples (n, k) and exact log10 p-values (n, k) of n answers."""

    names: list[str]
    tuples: I64
    log10_ps: Floats

    def by_key(self) -> list[KeyFound]:
        """Each key over all answers."""
        return [
            KeyFound(key=name, tuples=int(counts.sum()), log10_pvalue=fisher_log10(log10_ps[counts > 0]))
            for name, counts, log10_ps in zip(self.names, self.tuples.T, self.log10_ps.T, strict=True)
        ]

    def by_answer(self) -> Floats:
        """Each answer over all keys, (n,)."""
        rows = zip(self.tuples, self.log10_ps, strict=True)
        return np.array([fisher_log10(log10_ps[counts > 0]) for counts, log10_ps in rows])


def make_keys(key: AnyKey, spec: WatermarkSpec, tenant: str | None, controls: Sequence[str] = ()) -> Keys:
    """The keys that a check needs, from what the operator holds.

    Parameters
    ----------
    key
        The master key, or the account's own.
    tenant
        The account to find; None where requests name none.
    controls
        Accounts that must show nothing, beside made-up ones.

    Raises
    ------
    DyetraceError
        The key is not the spec's, the account does not go with it, or there would be nothing to look for.
    """
    if isinstance(key, ForeignKey) or is_format(spec.build_scheme()):
        raise DyetraceError("serve-check tests dyetrace's own marks; read those of other systems with `dyetrace scan`")
    accounts = selector_threshold(spec) < 2**32
    if not accounts and (tenant is not None or controls):
        raise DyetraceError("the spec has no accounts (global_share 1): leave --tenant and --control out")
    if tenant is not None and tenant in controls:
        raise DyetraceError(f"account {tenant!r} can't be both the one to find and a control; leave one out")
    named = [] if tenant is None else [tenant]
    if isinstance(key, SecretKey) and accounts:
        names = [*controls, *(f"no-such-account-{number}" for number in range(1, CONTROLS + 1))]
        others = [replace(ring_of(key, spec, [name]), global_key=None) for name in names]
        return _not_empty(Keys(ring_of(key, spec, named), others, names), spec)
    ring = ring_of(key, spec, [*named, *controls])
    rings = decoy_rings("dyetrace serve-check", CONTROLS, spec, ring)
    return _not_empty(Keys(ring, rings, [f"decoy {number}" for number in range(1, CONTROLS + 1)]), spec)


def _not_empty(keys: Keys, spec: WatermarkSpec) -> Keys:
    if not tested_keys(spec, keys.ring):
        raise DyetraceError("every context of this spec is an account's (global_share 0): name one by --tenant")
    return keys


def fisher_log10(log10_ps: npt.ArrayLike) -> float:
    """Log10 p of independent p-values taken together (Fisher 1932): 0 of none.

    Parameters
    ----------
    log10_ps
        Shape (n,), at most 0; p-values uniform or larger under the null hypothesis.
    """
    found = np.asarray(log10_ps, dtype=np.float64)
    return tails.log10_sf(Exponential(), len(found), max(0.0, -math.log(10) * float(found.sum())))


def fresh_tuples(spec: WatermarkSpec, served: Sequence[Served]) -> list[Tuples]:
    """Each answer's distinct tuples that no answer before it has."""
    seen = np.empty(0, dtype=np.uint64)
    found = []
    for answer in served:
        tuples = distinct_tuples(answer.ids, spec.context_width, answer.lead)
        names = tuple_fingerprints(tuples.sequence, tuples.width, 0)[tuples.index]
        found.append(tuples.take(~np.isin(names, seen)))
        seen = np.union1d(seen, names)
    return found


def weigh(spec: WatermarkSpec, ring: KeyRing, tuples: Sequence[Tuples]) -> Evidence:
    """Test each answer's tuples for the keys of a ring."""
    names = held_keys(spec, ring)
    counts = np.zeros((len(tuples), len(names)), dtype=np.int64)
    log10_ps = np.zeros((len(tuples), len(names)))
    for row, own in enumerate(tuples):
        if not len(own):
            continue
        for column, found in enumerate(blind_test(spec, ring, own, decoy_count=0).hypotheses):
            counts[row, column], log10_ps[row, column] = found.tuples, found.log10_pvalue
    return Evidence(names, counts, log10_ps)


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What was found in answers: by key, by answer, and under keys that must show nothing."""

    keys: list[KeyFound]
    answers: list[AnswerFound]
    others: dict[str, float]


def examine(spec: WatermarkSpec, keys: Keys, served: Sequence[Served]) -> Findings:
    """Run all tests over answers."""
    tuples = fresh_tuples(spec, served)
    evidence = weigh(spec, keys.ring, tuples)
    answers = [
        AnswerFound(
            prompt=answer.prompt,
            tokens=len(answer.ids),
            tuples=int(counts.sum()),
            log10_pvalue=float(p),
            part=answer.part,
        )
        for answer, counts, p in zip(served, evidence.tuples, evidence.by_answer(), strict=True)
    ]
    others = {
        name: fisher_log10([found.log10_pvalue for found in weigh(spec, ring, tuples).by_key() if found.tuples])
        for name, ring in zip(keys.names, keys.others, strict=True)
    }
    return Findings(evidence.by_key(), answers, others)
