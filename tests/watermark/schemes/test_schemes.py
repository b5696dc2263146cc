"""The schemes: exact laws of their statistics; marked distributions against their definitions in other words."""

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.laws import Bernoulli, Exponential, WeightedBits
from watermark.registry import make_scheme, scheme_names
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.protocol import Scheme, parameters
from watermark.schemes.tournament import Tournament

torch = pytest.importorskip("torch")

SCHEMES: list[Any] = [
    Gumbel(),
    Tournament(),
    Tournament(depth=1),
    Tournament(depth=7),
    Tournament(depth=32),
    GreenList(),
    GreenList(0.5, 5.0),
]
RNG = np.random.default_rng(2_024)
WORDS = RNG.integers(0, 2**32, 1_000_000, dtype=np.uint32)
EDGES = np.array([0, 1, 2**8, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], dtype=np.uint32)
depths = st.integers(1, 32)
word_arrays = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


def label(scheme: Scheme) -> str:
    return f"{scheme.name}{list(parameters(scheme).values())}"


def within(sigmas: float, mean: float, expected: float, variance: float, count: int) -> bool:
    return abs(mean - expected) <= sigmas * math.sqrt(variance / count)


# --------------------------------------------------------------------------------------------- the registry


def test_names_and_defaults():
    assert set(scheme_names()) >= {"gumbel", "tournament", "green_list"}
    assert make_scheme("gumbel", {}) == Gumbel()
    assert make_scheme("tournament", {}) == Tournament(depth=30)
    assert make_scheme("green_list", {}) == GreenList(gamma=0.25, delta=2.0)
    assert make_scheme("green_list", {"delta": 3}) == GreenList(delta=3.0)


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_each_is_a_scheme_and_comes_back_from_its_published_parameters(scheme):
    assert isinstance(scheme, Scheme)
    assert make_scheme(scheme.name, parameters(scheme)) == scheme


@pytest.mark.parametrize("name, wrong", [("gumbel", "depth"), ("tournament", "gamma"), ("green_list", "law")])
def test_a_parameter_that_a_scheme_does_not_know_is_named(name, wrong):
    with pytest.raises(DyetraceError, match=f"scheme '{name}' has no parameter '{wrong}'"):
        make_scheme(name, {wrong: 1})


# --------------------------------------------------------------------------------- statistics and their laws


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_a_statistic_is_an_integer_for_each_word(scheme):
    scores = scheme.statistic(EDGES)
    assert scores.dtype == np.int64
    assert scores.shape == EDGES.shape
    assert (scores >= 0).all()
    assert scheme.statistic(EDGES[:0]).shape == (0,)
    assert scheme.statistic(EDGES.reshape(1, -1)).tolist() == [scores.tolist()]


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_mean_and_variance_over_random_words_are_the_laws(scheme):
    match scheme.law:
        case Exponential():
            mean, variance, fourth = 1.0, 1.0, 9.0
        case Bernoulli(gamma):
            mean, variance = gamma, gamma * (1 - gamma)
            fourth = variance * (1 - 3 * variance)
        case WeightedBits(weights):
            mean, variance = sum(weights) / 2, sum(w * w for w in weights) / 4
            fourth = 3 * variance**2 - 2 * sum(w**4 for w in weights) / 16
    scores = scheme.statistic(WORDS) * scheme.unit
    assert within(5, scores.mean(), mean, variance, len(WORDS))
    assert within(5, ((scores - mean) ** 2).mean(), variance, fourth - variance**2, len(WORDS))


@given(word_arrays)
def test_gumbels_score_is_the_logarithm_rounded_down(words):
    """Against mpmath with 40 digits: -log(1 - word / 2^32), in units of 2^-24 nats."""
    with mpmath.workdps(40):
        exact = [-mpmath.log1p(-mpmath.mpf(word) / 2**32) * 2**24 for word in words]
        floors = [int(mpmath.floor(value)) for value in exact]
    assert Gumbel().statistic(np.array(words, dtype=np.uint32)).tolist() == floors


def test_gumbels_scores_at_the_ends():
    assert Gumbel().unit == 2.0**-24
    low, high = Gumbel().statistic(np.array([0, 2**32 - 1], dtype=np.uint32))
    assert low == 0
    assert high == math.floor(32 * math.log(2) * 2**24)


def test_gumbels_tail_never_exceeds_its_laws_and_falls_short_by_less_than_a_word():
    """P(score >= s) over the 2^32 words, counted from the first word that reaches s: at most exp(-s)."""
    scheme = Gumbel()
    for nats in [1e-6, 0.1, 0.5, 1, 2, 5, 10, 15, 20, 21.5, 22.1]:
        units = math.ceil(nats * 2**24)
        first = round(2**32 * -math.expm1(-nats))
        near = np.arange(max(0, first - 300), min(2**32, first + 300), dtype=np.uint64).astype(np.uint32)
        reached = scheme.statistic(near) >= units
        assert not reached[0] or near[0] == 0
        count = 2**32 - int(near[0] + np.count_nonzero(~reached))
        assert -1 - 1e-6 < count - 2**32 * math.exp(-units * scheme.unit) <= 1e-6


def test_gumbel_is_uniform_in_its_scores_over_every_4096th_word():
    words = np.arange(2048, 2**32, 4096, dtype=np.uint32)
    u = -np.expm1(-Gumbel().statistic(words) * Gumbel().unit)
    assert np.abs(np.sort(u) - (words + 0.5) / 2**32).max() < 2**-23


@given(depths, word_arrays)
def test_tournaments_score_is_the_weighted_sum_of_the_words_bits(depth, words):
    scheme = Tournament(depth)
    assert scheme.weights == tuple(range(depth, 0, -1))
    expected = [sum((depth - layer) * (word >> layer & 1) for layer in range(depth)) for word in words]
    assert scheme.statistic(np.array(words, dtype=np.uint32)).tolist() == expected


@pytest.mark.parametrize("depth", [1, 3, 8, 9, 16])
def test_tournaments_scores_have_the_exact_law_over_all_words(depth):
    """All words of 16 bits, against the convolution of the layers' laws; higher bits change nothing."""
    scheme = Tournament(depth)
    words = np.arange(2**16, dtype=np.uint32)
    counts = np.bincount(scheme.statistic(words), minlength=sum(scheme.weights) + 1)
    exact = np.array([2**16], dtype=np.int64)
    for weight in scheme.law.weights:
        halves = np.zeros(len(exact) + weight, dtype=np.int64)
        halves[: len(exact)] += exact
        halves[weight:] += exact
        exact = halves // 2
        assert (halves % 2 == 0).all()
    assert counts.tolist() == exact.tolist()
    high = np.uint32(0xFFFF << 16)
    assert (scheme.statistic(words | high) == scheme.statistic(words)).all()


@pytest.mark.parametrize("byte", range(4))
def test_tournaments_table_scores_each_byte_by_itself(byte):
    scheme = Tournament(32)
    values = np.arange(256, dtype=np.uint32) << np.uint32(8 * byte)
    rest = np.array([0x5A5A5A5A & ~(0xFF << 8 * byte)], dtype=np.uint32)
    assert (scheme.statistic(values | rest) == scheme.statistic(values) + scheme.statistic(rest)).all()
    expected = [32 - 8 * byte - bit for bit in range(8)]
    assert scheme.statistic(np.uint32(1) << np.arange(8 * byte, 8 * byte + 8, dtype=np.uint32)).tolist() == expected


@pytest.mark.parametrize("gamma", [1e-12, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1 - 1e-12])
def test_green_is_below_the_threshold_and_the_law_has_exactly_its_share(gamma):
    scheme = GreenList(gamma=gamma)
    threshold = scheme.threshold
    assert 1 <= threshold < 2**32
    assert Fraction(scheme.law.gamma) == Fraction(threshold, 2**32)
    assert abs(threshold - gamma * 2**32) <= 1
    around = np.array([0, threshold - 1, threshold, 2**32 - 1], dtype=np.uint32)
    assert scheme.statistic(around).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("gamma", [0, 1, -0.1, 1.1, math.nan, math.inf])
def test_green_shares_outside_0_to_1_are_refused(gamma):
    with pytest.raises(DyetraceError, match=r"gamma must lie in \(0, 1\)"):
        GreenList(gamma=gamma)


@pytest.mark.parametrize("delta", [0, -1, 20.5, math.nan, math.inf])
def test_biases_outside_0_to_20_are_refused(delta):
    with pytest.raises(DyetraceError, match=r"delta must lie in \(0, 20\] nats"):
        GreenList(delta=delta)


# ----------------------------------------------------------------------------- the marked distribution, plain


def random_logits(rows: int, size: int, seed: int = 0, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, size, generator=generator) * scale


def random_words(rows: int, size: int, seed: int = 0):
    words = np.random.default_rng(seed).integers(0, 2**32, (rows, size))
    return torch.from_numpy(words)


def test_green_list_adds_delta_exactly_where_the_primitive_says():
    key, context, scheme = SecretKey(bytes(range(32))), [7, 11], GreenList(0.25, 2.5)
    words = [prf.prf_u32(key, context, token) for token in range(100)]
    logits = random_logits(1, 100)
    logits[0, 5] = -torch.inf
    marked = scheme.transform(logits, torch.tensor([words]))
    expected = [
        float(np.float32(logit) + np.float32(2.5)) if word < 2**30 else logit
        for logit, word in zip(logits[0].tolist(), words, strict=True)
    ]
    assert marked.tolist() == [expected]
    assert 10 < sum(word < 2**30 for word in words) < 40


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_gumbel_chooses_the_largest_log_u_over_p(seed, size):
    logits, words = random_logits(3, size, seed % 1000), random_words(3, size, seed)
    marked = Gumbel().transform(logits, words)
    for row in range(3):
        logit = logits[row].double().numpy()
        p = np.exp(logit - logit.max()) / np.exp(logit - logit.max()).sum()
        u = (words[row].double().numpy() + 0.5) / 2**32
        choice = int(np.argmax(np.log(u) / p))
        assert marked[row, choice] == 0
        assert (np.delete(marked[row].numpy(), choice) == -np.inf).all()


def test_gumbel_never_chooses_what_is_excluded():
    logits, words = random_logits(200, 20), random_words(200, 20)
    logits[:, ::2] = -torch.inf
    assert set(Gumbel().transform(logits, words).argmax(-1).tolist()) <= set(range(1, 20, 2))


def played(p: list[Fraction], g: list[list[int]]) -> list[Fraction]:
    """The tournament of Dathathri et al. (2024), algorithm 2, by trying all candidates there can be.

    2^m candidates are drawn from p with replacement; in layer l pairs compete by g_l, ties are broken by a
    fair coin, and the winners go on.
    """
    size, depth = len(p), len(g)
    result = [Fraction(0)] * size
    for candidates in itertools.product(range(size), repeat=2**depth):
        players = [{candidate: Fraction(1)} for candidate in candidates]
        for layer in g:
            players = [compete(*pair, layer) for pair in zip(players[::2], players[1::2], strict=True)]
        chance = math.prod(p[candidate] for candidate in candidates)
        for winner, share in players[0].items():
            result[winner] += chance * share
    return result


def compete(left: dict, right: dict, g: list[int]) -> dict:
    """The winner's law, where either side's player is already a matter of coins."""
    out: dict[int, Fraction] = {}
    for (a, p), (b, q) in itertools.product(left.items(), right.items()):
        for winner, share in ((a, Fraction(1 + g[a] - g[b], 2)), (b, Fraction(1 + g[b] - g[a], 2))):
            out[winner] = out.get(winner, Fraction(0)) + p * q * share
    return {winner: chance for winner, chance in out.items() if chance}


@pytest.mark.parametrize("size, depth", [(2, 1), (3, 1), (5, 1), (4, 2), (3, 2), (2, 3), (3, 3)])
def test_tournament_is_the_tournament_between_all_candidates(size, depth):
    rng = np.random.default_rng(size * 10 + depth)
    for _ in range(3 if size**2**depth < 1000 else 1):
        weights = rng.integers(1, 20, size).tolist()
        p = [Fraction(weight, sum(weights)) for weight in weights]
        words = rng.integers(0, 2**32, size).tolist()
        exact = played(p, [[word >> layer & 1 for word in words] for layer in range(depth)])
        assert sum(exact) == 1
        logits = torch.tensor([[math.log(x) for x in p]], dtype=torch.float64)
        marked = Tournament(depth).transform(logits, torch.tensor([words])).exp()[0]
        assert marked.tolist() == pytest.approx([float(x) for x in exact], abs=1e-12)


def by_recursion(p: np.ndarray, words: np.ndarray, depth: int) -> np.ndarray:
    """The law of the winner, layer by layer: both players of a match have the law of the layer before."""
    for layer in range(depth):
        g = words >> layer & 1
        wins = (1 + g[:, None] - g[None, :]) / 2
        p = 2 * p * (wins @ p)
    return p


@given(st.integers(1, 32), st.integers(1, 40), st.integers(0, 2**32))
def test_tournament_is_the_recursion_over_layers_at_any_depth(depth, size, seed):
    logits, words = random_logits(2, size, seed % 1000), random_words(2, size, seed)
    marked = Tournament(depth).transform(logits, words)
    for row in range(2):
        exact = by_recursion(logits[row].double().softmax(-1).numpy(), words[row].numpy(), depth)
        assert np.abs(marked[row].double().exp().numpy() - exact).max() < 1e-5


P = [0.45, 0.3, 0.15, 0.07, 0.02, 0.01]


@pytest.mark.parametrize("scheme", [Gumbel(), Tournament(1), Tournament(4), Tournament(30)], ids=label)
def test_sampling_schemes_leave_the_distribution_as_it_is_on_average_over_keys(scheme):
    n = 200_000
    marked = scheme.transform(torch.tensor(P).log().expand(n, -1), random_words(n, len(P))).double().exp()
    means = marked.mean(0)
    for entry, p in enumerate(P):
        assert within(5, float(means[entry]), p, float(marked[:, entry].var()), n)
    assert float(marked[:, 0].var()) > 0.01  # and yet each key changes it


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_marking_raises_the_statistic(scheme):
    n, size = 2000, 50
    words = random_words(n, size)
    p = scheme.transform(torch.zeros(n, size), words).double().softmax(-1).numpy()
    scores = scheme.statistic(words.numpy().astype(np.uint32)) * scheme.unit
    assert (p * scores).sum(1).mean() > scores.mean() * 1.2


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_transform_leaves_its_input_alone(scheme):
    logits, words = random_logits(2, 300), random_words(2, 300)
    before = logits.clone()
    scheme.transform(logits, words)
    scheme.transform_rows(logits, *keys_and_nonces(2))
    assert torch.equal(logits, before)


# ----------------------------------------------------------------------- whole rows, fused with the primitive


def keys_and_nonces(rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (rows, 8), dtype=np.uint32), rng.integers(0, 2**32, (3, rows), dtype=np.uint32)


def plain_rows(scheme: Scheme, logits, keys, nonces):
    words = prf.words_rows(keys, nonces, logits.shape[1]).astype(np.int64)
    return scheme.transform(logits.float(), torch.from_numpy(words))


def assert_same_marks(scheme: Any, logits, seed: int = 0) -> None:
    keys, nonces = keys_and_nonces(len(logits), seed)
    fused = scheme.transform_rows(logits, keys, nonces)
    plain = plain_rows(scheme, logits, keys, nonces)
    assert fused.dtype == torch.float32
    assert fused.shape == logits.shape
    assert not fused.isnan().any()
    if scheme.name == "tournament":
        assert (fused.exp().sum(-1) - 1).abs().max() < 1e-4
        assert (fused.exp() - plain.exp()).abs().max() < 1e-5
        assert not ((fused > -torch.inf) & (logits == -torch.inf)).any()
    else:
        assert torch.equal(fused, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows, size", [(1, 1), (1, 2), (1, 255), (3, 256), (2, 257), (64, 1003), (2, 33_000)])
@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_fused_rows_are_the_plain_definition(scheme, rows, size, dtype):
    assert_same_marks(scheme, random_logits(rows, size, seed=size).to(dtype))


@pytest.mark.parametrize("live", [1, 2, 17, 100, 300])
@pytest.mark.parametrize("rows, size", [(1, 1003), (64, 1003)])
@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_fused_rows_are_the_plain_definition_after_top_k(scheme, rows, size, live):
    """300 of 1003 is beyond what is gathered, 100 is not; the last row has a single live token."""
    logits = random_logits(rows, size, seed=live)
    cut = logits.topk(live).values[:, -1:]
    logits = logits.masked_fill(logits < cut, -torch.inf)
    logits[-1] = -torch.inf
    logits[-1, size - 1] = 3.0
    assert_same_marks(scheme, logits, seed=live)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.samples], ids=label)
@pytest.mark.parametrize("place", [0, 255, 256, 1002])
def test_a_row_with_a_single_live_token_keeps_it(scheme, place):
    logits = torch.full((2, 1003), -torch.inf)
    logits[:, place] = torch.tensor([-5.0, 1e4])
    marked = scheme.transform_rows(logits, *keys_and_nonces(2))
    assert marked[:, place].tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (marked.softmax(-1)[:, place] == 1).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
@pytest.mark.parametrize("scale", [0.0, 0.01, 10.0, 100.0])
def test_flat_and_sharp_rows_of_a_whole_vocabulary_are_marked_without_nan(scheme, scale):
    """Sharp ones leave all mass on few tokens, where rounding may put a layer's mean above 1."""
    assert_same_marks(scheme, random_logits(4, 50_000, scale=scale), seed=5)


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_each_row_has_its_own_key_and_nonce_whatever_stands_beside_it(scheme):
    logits = random_logits(64, 1003)
    keys, nonces = keys_and_nonces(64)
    together = scheme.transform_rows(logits, keys, nonces)
    for row in (0, 31, 63):
        alone = scheme.transform_rows(logits[[row]], keys[[row]], nonces[:, [row]])
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_rows_may_lie_in_memory_in_any_way(scheme):
    logits = random_logits(600, 3).T
    keys, nonces = keys_and_nonces(3)
    strided = scheme.transform_rows(logits, keys, np.asfortranarray(nonces))
    assert torch.equal(strided, scheme.transform_rows(logits.contiguous(), keys, nonces))


def test_gumbel_rows_race_over_all_tiles_and_tasks():
    """Of equal logits the winner is the token with the largest word, wherever it stands."""
    keys, nonces = keys_and_nonces(40)
    for size in (1003, 40_000):
        words = prf.words_rows(keys, nonces, size)
        marked: Any = Gumbel().transform_rows(torch.zeros(40, size), keys, nonces)
        assert (marked.argmax(-1).numpy() == words.argmax(-1)).all()
        assert ((marked == 0).sum(-1) == 1).all()
