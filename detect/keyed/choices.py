"""What a key makes of a known distribution over candidates: weights whose mean over keys is that distribution, exactly.

Scheme by scheme: which candidate wins the race, what the tournament leaves of each, how far each is raised for being
green. Any distribution will do that was made without the key; so the weights are what both a document's model-aware
test and the race readout bet on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from watermark import prf
from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.protocol import Scheme
from watermark.schemes.tournament import Tournament

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

KeyedScheme = Gumbel | Tournament | GreenList

LATTICE = 2.0**-33
"""By how much at most the chance that a candidate wins the race exceeds its share of the distribution, for each of the
candidates: words are whole numbers, so u has steps of 2^-32. Proof: given the others' words, candidate y wins where u_y
reaches t, the largest of the others' u_v^(p_y / p_v); the steps' middles at or above t are a share 1 - t of all, but
for 2^-33. And t is monotone in each other u_v, so that putting a step's middle for the whole step changes its mean by
at most half of the range, 2^-33 again; the other schemes' means are exact."""


def keyed_scheme(scheme: Scheme) -> KeyedScheme:
    """The scheme, if it is one whose choice among candidates is known here.

    Raises
    ------
    DyetraceError
        It is a foreign format or a third party's.
    """
    # By their exact types: a scheme that inherits from one of these may choose otherwise.
    if type(scheme) is Gumbel or type(scheme) is Tournament or type(scheme) is GreenList:
        return scheme
    raise DyetraceError(
        f"what scheme {scheme.name!r} makes of an owner's chances is not known; it is for gumbel, tournament and "
        "green_list"
    )


def candidate_words(key: SecretKey, contexts: prf.U32, tokens: I32) -> prf.U32:
    """The words of candidates (n, k) after contexts (n, h), oldest token first, under one key: shape (n, k)."""
    nonces = prf.nonces(contexts, prf.context_key_words(key, contexts.shape[1]))
    return prf.words_among(np.tile(key.words, (len(tokens), 1)), nonces, tokens.astype(np.uint32))


def choices(scheme: KeyedScheme, words: prf.U32, chances: F64) -> F64:
    """The weights, shape (n, k).

    * ``gumbel``: 1 for argmax log(u_v) / p_v, 0 for the others; its mean is p to `LATTICE` for each candidate.
    * ``tournament``: what is left after all layers of p <- p (1 + g - sum p g). Given the layers before, a layer's fair
      bits leave the mean as it was.
    * ``green_list``: p_v e^(omega_v g_v) / E e^(omega_v g_v), `green_leanings`. The bias that the scheme adds has no
      mean of p, but any function of a candidate's own g, divided by its mean, has mean 1.

    Parameters
    ----------
    scheme
        How the key chooses.
    words
        Of the candidates, shape (n, k).
    chances
        p, rows sum to 1, shape (n, k); 0 is for columns that hold no candidate.
    """
    if isinstance(scheme, GreenList):
        omega, gamma = green_leanings(scheme, chances), scheme.law.gamma
        return np.asarray(chances * np.exp(omega * scheme.statistic(words)) / (1 - gamma + gamma * np.exp(omega)))
    out = np.zeros(chances.shape)
    if isinstance(scheme, Gumbel):
        _races(words, chances, out)
    else:
        _tournaments(words, chances, scheme.depth, out)
    return out


def green_leanings(scheme: GreenList, p: F64) -> F64:
    """Log-likelihood ratio of "green" given that a candidate of probability p was chosen, elementwise.

    omega(p) = delta - log((1 + c (p + (1 - p) gamma)) / (1 + c (1 - p) gamma)), c = e^delta - 1: the others are green
    in their mean share.
    """
    gamma, c = scheme.law.gamma, math.expm1(scheme.delta)
    return np.asarray(scheme.delta - np.log((1 + c * (p + (1 - p) * gamma)) / (1 + c * (1 - p) * gamma)))


@jit()
def _races(words: prf.U32, chances: F64, out: F64) -> None:
    rows, k = chances.shape
    for row in range(rows):
        best, winner = -math.inf, -1
        for v in range(k):
            if chances[row, v] > 0:
                time = math.log((words[row, v] + 0.5) / 4294967296.0) / chances[row, v]
                if time > best:
                    best, winner = time, v
        if winner >= 0:
            out[row, winner] = 1.0


@jit()
def _tournaments(words: prf.U32, chances: F64, depth: int, out: F64) -> None:
    # In float64, unlike what an engine does to its logits: thousands of these are multiplied.
    rows, k = chances.shape
    for row in range(rows):
        p = out[row]
        mean = 0.0
        for v in range(k):
            p[v] = chances[row, v]
            mean += p[v] * (words[row, v] & np.uint32(1))
        for layer in range(depth):
            lost, following = max(0.0, 1.0 - mean), 0.0
            for v in range(k):
                p[v] *= lost + ((words[row, v] >> np.uint32(layer)) & np.uint32(1))
                if layer + 1 < depth:
                    following += p[v] * ((words[row, v] >> np.uint32(layer + 1)) & np.uint32(1))
            mean = following
