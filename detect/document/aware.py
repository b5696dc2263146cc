"""The model-aware test of one document: e-values W_key(x) / P(x) from the owner's model.

For an unbiased scheme the marked distribution W_key, averaged over keys, is the distribution P that it was made from,
whatever P is. So e = W_key(x) / P(x) has mean 1 under the null for any estimate P and any token x: an e-value. The
words of rows with distinct contexts are independent, so products over them are e-values too, and so is any average of
those. The averages below guard against a P that is not quite the generator's: over temperatures, over perturbed
copies of P, and over betting fractions lambda in 1 + lambda (e - 1) (Shafer 2021; Waudby-Smith and Ramdas 2024,
section 4). By Markov's inequality p = min(1, 1/e).

What the null needs (line "aware" of `docs/validity.md`). The text is fixed and the key is drawn, so P may be any
function of the text, of all of it: that the model guesses each token from earlier ones alone matters for power and not
for validity. So may the candidates, which are the model's likeliest tokens and the text's own: given text and
candidates, the words of a row are independent and uniform, and the text's token wins a race among them with just the
chance that P, normalised over them, gives it. (Each of a row's candidates stands there once: `Likelihood` pads with
logit -inf what would be there twice.) A row counts for a context's first place alone. What P must not be is a function
of the key: a model that learnt from text marked with this key has weights that depend on it, and then nothing is
promised. Nor must the text, or the choice of it, be (`detect.document.blind`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np
import numpy.typing as npt

from detect.document.likelihood import Likelihood
from detect.keyed.choices import green_leanings
from detect.keyed.decoys import decoy_rings
from detect.keyed.owners import owned, tested_keys
from detect.keyed.words import Source
from detect.laws.multiplicity import holm_log10, mean_log10_e
from detect.records.detection import AwareHypothesis, AwareResult
from detect.records.key_name import KeyName
from detect.text.distinct import Mask
from watermark import prf
from watermark.backends.numba_backend import jit
from watermark.backends.numba_rows import tournament_layers
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, MarkingKey
from watermark.rowkeys import subkey
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.protocol import Scheme
from watermark.schemes.tournament import Tournament
from watermark.spec import WatermarkSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.2)
SPREADS = (0.3, 1.0)  # standard deviations, in nats, of the perturbations of the logits
MEMBERS = 24  # perturbed copies per temperature and spread
FRACTIONS = (0.2, 0.5, 0.8, 0.95, 0.99)
_BLOCK = 64  # positions whose perturbed copies are in memory at a time
_FLOOR = 1e-12  # least probability of a candidate: any P is allowed, and this one never divides by 0


def aware_test(
    spec: WatermarkSpec,
    ring: KeyRing,
    likelihood: Likelihood,
    *,
    model: str,
    decoy_seed: str = "dyetrace",
    decoy_count: int = 100,
    decoy_accounts: int | None = None,
) -> AwareResult:
    """Test one document for every key of the ring.

    Parameters
    ----------
    spec, ring
        The watermark and the keys to test.
    likelihood
        `detect.document.likelihood.likelihood` of the document.
    model
        What to call the model in the record.
    decoy_seed, decoy_count
        Public seed and number of the decoy keys.
    decoy_accounts
        How many accounts' keys each decoy has; None: as many as are tested.
    """
    rings = [ring, *decoy_rings(decoy_seed, decoy_count, spec, ring, accounts=decoy_accounts)]
    evidence = _evidence(spec, rings, likelihood)
    log10_ps = np.array([min(0.0, -log10_e) for _, _, log10_e in evidence[0]])
    hypotheses = [
        AwareHypothesis(
            key=str(name),
            positions=positions,
            log10_evalue=log10_e,
            log10_pvalue=float(log10_p),
            log10_pvalue_adjusted=float(adjusted),
        )
        for (name, positions, log10_e), log10_p, adjusted in zip(
            evidence[0], log10_ps, holm_log10(log10_ps), strict=True
        )
    ]
    return AwareResult(
        model=model,
        hypotheses=hypotheses,
        log10_pvalue=min((h.log10_pvalue_adjusted for h in hypotheses), default=0.0),
        decoy_log10_evalues=[max(log10_e for _, _, log10_e in one) for one in evidence[1:]],
    )


Evidence = list[tuple[KeyName, int, float]]  # key, positions, log10 e-value


def _evidence(spec: WatermarkSpec, rings: Sequence[KeyRing], likelihood: Likelihood) -> list[Evidence]:
    """Every key of every ring in one pass: a key's e-value is the mean of its sub-keys'."""
    keys: list[MarkingKey] = []
    masks: list[Mask] = []
    names: list[list[KeyName]] = []
    for ring in rings:
        mine = owned(spec, ring.selector, likelihood.tuples)
        tested = tested_keys(spec, ring)
        for name, key in tested.items():
            keys += [subkey(key, index) for index in range(spec.subkeys)]
            masks += [mine[name.is_global]] * spec.subkeys
        names.append(list(tested))
    log10_es = iter(log10_evalues(spec.build_scheme(), keys, masks, likelihood).reshape(-1, spec.subkeys))
    positions = iter(int(mask.sum()) for mask in masks[:: spec.subkeys])
    return [[(name, next(positions), mean_log10_e(next(log10_es))) for name in ring_names] for ring_names in names]


def log10_evalues(scheme: Scheme, keys: Sequence[MarkingKey], masks: Sequence[Mask], likelihood: Likelihood) -> F64:
    """log10 e-value of the document under each marking key, over the positions of its mask: shape (len(keys),)."""
    betting = _betting(scheme)
    logs = np.zeros((len(keys), betting.components, len(FRACTIONS)))
    generator = np.random.default_rng(0)  # fixed and public: P must not depend on the key
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        for start in range(0, len(likelihood.tuples), _BLOCK):
            part = slice(start, start + _BLOCK)
            block = likelihood.take(part)
            grow = partial(_growth, scheme, betting, block, betting.estimates(block.logits, generator))
            logs += np.stack(list(pool.map(grow, keys, [mask[part] for mask in masks])))
    flat = logs.reshape(len(keys), -1)
    highest = flat.max(axis=1, keepdims=True)
    mean = highest[:, 0] + np.log(np.exp(flat - highest).mean(axis=1))
    return np.asarray(mean / math.log(10.0))


def _growth(scheme: Scheme, betting: _Betting, block: Likelihood, estimates: F32, key: MarkingKey, mask: Mask) -> F64:
    """Summed log(1 + lambda (e - 1)) of one block under one key: (components, fractions)."""
    tuples = block.tuples
    n, k = block.candidates.shape
    candidates = Source(
        scheme,
        tuples.width,
        lambda: np.repeat(tuples.contexts, k, axis=0),
        lambda context_key: np.repeat(tuples.nonces(context_key), k, axis=1),
        block.candidates.ravel(),
    )
    words = candidates.under(key).reshape(n, k)
    ratios = betting.ratios(words, estimates)[mask]
    return np.asarray(np.log1p(np.array(FRACTIONS) * (ratios[:, :, None] - 1.0)).sum(axis=0))


@dataclass(frozen=True, slots=True)
class _Betting:
    """How a scheme's e-values are made.

    ``estimates(logits (n, k), generator)`` gives estimates of P that depend on no key; ``ratios(words (n, k),
    estimates)`` the e-values (n, components).
    """

    components: int
    estimates: Callable[[F32, np.random.Generator], F32]
    ratios: Callable[[prf.U32, F32], F64]


def _betting(scheme: Scheme) -> _Betting:
    tempered = len(TEMPERATURES)
    if isinstance(scheme, Gumbel):
        return _Betting(tempered * (1 + len(SPREADS)), _perturbed, _gumbel_ratios)
    if isinstance(scheme, Tournament):
        return _Betting(tempered, _tempered, partial(_tournament_ratios, scheme.depth))
    if isinstance(scheme, GreenList):
        return _Betting(tempered, _tempered, partial(_green_list_ratios, scheme))
    raise DyetraceError(f"scheme {scheme.name!r} has no model-aware test; use the blind test alone")


def _log_softmax(logits: F32) -> F32:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    p = np.exp(shifted)
    p /= p.sum(axis=-1, keepdims=True)
    # Padding stays impossible; live candidates never fall to 0.
    floored = np.where(np.isneginf(logits), 0.0, np.maximum(p, _FLOOR))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(floored / floored.sum(axis=-1, keepdims=True)), dtype=np.float32)


def _tempered(logits: F32, generator: np.random.Generator) -> F32:
    """log P at each temperature: (n, temperatures, k)."""
    return np.stack([_log_softmax(logits / np.float32(t)) for t in TEMPERATURES], axis=1)


def _perturbed(logits: F32, generator: np.random.Generator) -> F32:
    """log P of each temperature, then of its perturbed copies: (n, temperatures, 1 + spreads * members, k)."""
    n, k = logits.shape
    noise = generator.standard_normal((n, len(SPREADS), MEMBERS, k), dtype=np.float32)
    noise *= np.array(SPREADS, dtype=np.float32)[None, :, None, None]
    copies = np.concatenate([np.zeros((n, 1, k), np.float32), noise.reshape(n, -1, k)], axis=1)
    return np.stack([_log_softmax(logits[:, None] / np.float32(t) + copies) for t in TEMPERATURES], axis=1)


@jit()
def _wins(log_p: F32, race: F64) -> bool:
    """Whether candidate 0 wins the exponential race; the likeliest candidates come first, so a loss shows at once."""
    own = log_p[0] + race[0]
    for v in range(1, len(log_p)):
        if log_p[v] + race[v] > own:
            return False
    return True


@jit()
def _gumbel_kernel(words: prf.U32, log_p: F32, members: int, out: F64) -> None:
    n, temperatures, copies, k = log_p.shape
    spreads = (copies - 1) // members
    race = np.empty(k)
    for i in range(n):
        for v in range(k):
            race[v] = -math.log(-math.log((words[i, v] + 0.5) / 4294967296.0))
        log_u = math.log((words[i, 0] + 0.5) / 4294967296.0)
        for t in range(temperatures):
            log_own = np.float64(log_p[i, t, 0, 0])
            out[i, t * (1 + spreads)] = math.exp(min(700.0, (math.exp(-log_own) - 1.0) * log_u - log_own))
            for s in range(spreads):
                won = 0
                chance = 0.0
                for member in range(members):
                    row = log_p[i, t, 1 + s * members + member]
                    won += _wins(row, race)
                    chance += math.exp(row[0])
                out[i, t * (1 + spreads) + 1 + s] = won / chance


def _gumbel_ratios(words: prf.U32, log_p: F32) -> F64:
    """The pivot's density ratio u^(1/p - 1) / p, and the mean indicator of winning over the mean chance of it."""
    out = np.empty((len(words), len(TEMPERATURES) * (1 + len(SPREADS))))
    _gumbel_kernel(words, log_p, MEMBERS, out)
    return out


@jit()
def _tournament_kernel(words: prf.U32, log_p: F32, depth: int, out: F64) -> None:
    n, temperatures, _ = log_p.shape
    for i in range(n):
        for t in range(temperatures):
            p = np.exp(log_p[i, t])
            before = p[0]
            tournament_layers(p, words[i], depth)
            out[i, t] = p[0] / before


def _tournament_ratios(depth: int, words: prf.U32, log_p: F32) -> F64:
    """prod over layers of 1 + g(x) - sum_v W(v) g(v): how much the tournament raised the text's token."""
    out = np.empty(log_p.shape[:2])
    _tournament_kernel(words, log_p, depth, out)
    return out


def _green_list_ratios(scheme: GreenList, words: prf.U32, log_p: F32) -> F64:
    """e^(omega g) / E e^(omega g), omega = `detect.keyed.choices.green_leanings`."""
    gamma = scheme.law.gamma
    omega = green_leanings(scheme, np.exp(log_p[:, :, 0].astype(np.float64)))
    green = scheme.statistic(words[:, 0])[:, None]
    return np.asarray(np.exp(omega * green) / (1 - gamma + gamma * np.exp(omega)))
