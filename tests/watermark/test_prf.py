"""The primitive against RFC 8439, a second implementation in plain integers, and all backends.

`vectors/prf.json` holds vectors for implementers. They come from the plain-integer implementation below,
which shares no code with the package; `python tests/watermark/test_prf.py` writes them again.
"""

import hashlib
import itertools
import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaincc

from watermark import prf
from watermark.keys import SecretKey

VECTORS = Path(__file__).parent / "vectors" / "prf.json"

# ---------------------------------------------------------------- a second implementation, in plain integers


def plain_chacha(key: bytes, counter: int, nonce: list[int], rounds: int) -> list[int]:
    """One block, from the text of RFC 8439, 2.1 to 2.3."""
    state = [*b"expa", *b"nd 3", *b"2-by", *b"te k"]
    state = [*struct.unpack("<4I", bytes(state)), *struct.unpack("<8I", key), counter, *nonce]
    x = state[:]

    def quarter_round(a: int, b: int, c: int, d: int) -> None:
        for i, j, k, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[i] = (x[i] + x[j]) % 2**32
            turned = (x[k] ^ x[i]) * 2**bits
            x[k] = turned % 2**32 + turned // 2**32

    for _ in range(rounds // 2):
        for i in range(4):
            quarter_round(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter_round(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) % 2**32 for a, b in zip(x, state, strict=True)]


def plain_context_key(key: bytes) -> bytes:
    return hashlib.blake2b(key=key, digest_size=32, person=b"dyt:context").digest()


def plain_prf(key: bytes, context: list[int], token: int) -> int:
    """Word ``token % 16`` of block ``token // 16``; the context, most recent token first, makes the nonce."""
    recent = context[::-1]
    recent += [0xFFFFFFFF] * (-len(recent) % 3 if recent else 3)
    nonce = recent[:3]
    if len(context) > 3:
        nonce = [0, 0, 0]
        for i in range(0, len(recent), 3):
            mixed = [a ^ b for a, b in zip(nonce, recent[i : i + 3], strict=True)]
            nonce = plain_chacha(plain_context_key(key), len(context), mixed, 8)[:3]
    return plain_chacha(key, token // 16, nonce, 8)[token % 16]


def make_vectors() -> list[dict]:
    """Two keys; contexts of 0 to 7 tokens, some of them missing; tokens at the blocks' edges."""
    keys = [bytes(range(32)), hashlib.sha256(b"dyetrace test vector").digest()]
    tokens = [0, 1, 15, 16, 17, 255, 256, 50_256, 128_255, 151_935, 2**31, 2**32 - 1]
    ids = [13, 128_255, 0, 151_935, 2**32 - 2, 198, 2**31]
    vectors = []
    for key, width in itertools.product(keys, range(8)):
        contexts = [ids[:width]] + [[prf.MISSING] * n + ids[n:width] for n in {1, width} if 0 < n <= width]
        for context in contexts:
            vectors.append(
                {
                    "key": key.hex(),
                    "context_key": plain_context_key(key).hex() if width > 3 else None,
                    "context": context,
                    "tokens": tokens,
                    "words": [plain_prf(key, context, token) for token in tokens],
                }
            )
    return vectors


# ------------------------------------------------------------------------------------ the backends, as one


def _numpy_like(name: str) -> SimpleNamespace:
    """A numpy or numba backend, and `prf.nonces` computed by it."""
    backend = pytest.importorskip(f"watermark.backends.{name}_backend", exc_type=ImportError)

    def nonces(contexts, context_keys):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prf, "_backend", backend)
            return prf.nonces(contexts, context_keys)

    return SimpleNamespace(
        nonces=nonces,
        words_at=backend.words_at,
        words_among=backend.words_among,
        words_rows=backend.words_rows,
    )


def _torch() -> SimpleNamespace:
    torch = pytest.importorskip("torch")
    from watermark.backends import torch_backend as backend

    def ids(array):
        return torch.from_numpy(array.astype(np.int64))

    def words(tensor):
        assert tensor.dtype == torch.int64
        return tensor.numpy().astype(np.uint32)

    def nonces(contexts, context_keys):
        keys = None if context_keys is None else backend.key_tensor(context_keys)
        return backend.nonces(ids(contexts), keys).numpy().view(np.uint32)

    def given_tokens(function):
        return lambda key, nonce, tokens: words(
            function(backend.key_tensor(key), backend.key_tensor(nonce), ids(tokens))
        )

    return SimpleNamespace(
        nonces=nonces,
        words_at=given_tokens(backend.words_at),
        words_among=given_tokens(backend.words_among),
        words_rows=lambda keys, nonce, vocabulary: words(
            backend.words_rows(backend.key_tensor(keys), backend.key_tensor(nonce), vocabulary)
        ),
    )


# Triton must be told to interpret before it is imported, so it meets the vectors in test_triton_backend.py.
BACKENDS = {"numpy": lambda: _numpy_like("numpy"), "numba": lambda: _numpy_like("numba"), "torch": _torch}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> SimpleNamespace:
    return BACKENDS[request.param]()


def key_words(text: str) -> prf.U32:
    return np.frombuffer(bytes.fromhex(text), dtype="<u4").astype(np.uint32)


# ---------------------------------------------------------------------------------------------- the cipher

ZERO = "00" * 32
# (key, counter, nonce, block as words) of RFC 8439: 2.3.2, then appendix A.1, test vectors 1 to 5.
RFC_8439 = [
    (
        bytes(range(32)).hex(),
        1,
        [0x09000000, 0x4A000000, 0],
        "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3 "
        "466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2",
    ),
    (
        ZERO,
        0,
        [0, 0, 0],
        "ade0b876 903df1a0 e56a5d40 28bd8653 b819d2bd 1aed8da0 ccef36a8 c70d778b "
        "7c5941da 8d485751 3fe02477 374ad8b8 f4b8436a 1ca11815 69b687c3 8665eeb2",
    ),
    (
        ZERO,
        1,
        [0, 0, 0],
        "bee7079f 7a385155 7c97ba98 0d082d73 a0290fcb 6965e348 3e53c612 ed7aee32 "
        "7621b729 434ee69c b03371d5 d539d874 281fed31 45fb0a51 1f0ae1ac 6f4d794b",
    ),
    (
        "00" * 31 + "01",
        1,
        [0, 0, 0],
        "2452eb3a 9249f8ec 8d829d9b ddd4ceb1 e8252083 60818b01 f38422b8 5aaa49c9 "
        "bb00ca8e da3ba7b4 c4b592d1 fdf2732f 4436274e 2561b3c8 ebdd4aa6 a0136c00",
    ),
    (
        "00ff" + "00" * 30,
        2,
        [0, 0, 0],
        "fb4dd572 4bc42ef1 df922636 327f1394 a78dea8f 5e269039 a1bebbc1 caf09aae "
        "a25ab213 48a6b46c 1b9d9bcb 092c5be6 546ca624 1bec45d5 87f47473 96f0992e",
    ),
    (
        ZERO,
        0,
        [0, 0, 0x02000000],
        "374dc6c2 3736d58c b904e24a cd3f93ef 88228b1a 96a4dfb3 5b76ab72 c727ee54 "
        "0e0e978a f3145c95 1b748ea8 f786c297 99c28f5f 628314e8 398a19fa 6ded1b53",
    ),
]


@pytest.mark.parametrize(("key", "counter", "nonce", "block"), RFC_8439)
def test_the_cipher_at_20_rounds_is_the_one_of_rfc_8439(key, counter, nonce, block):
    expected = [int(word, 16) for word in block.split()]
    ours = prf.chacha_block(
        key_words(key), np.array([counter], np.uint32), np.array(nonce, np.uint32)[:, None], rounds=20
    )
    assert ours[:, 0].tolist() == expected
    assert plain_chacha(bytes.fromhex(key), counter, nonce, rounds=20) == expected


# --------------------------------------------------------------------------------------------- the vectors

VECTOR_LIST = json.loads(VECTORS.read_text())["vectors"] if VECTORS.exists() else []


def test_the_vectors_are_those_of_the_plain_implementation():
    assert make_vectors() == VECTOR_LIST


def test_the_definition_matches_the_vectors():
    for vector in VECTOR_LIST:
        key = SecretKey(bytes.fromhex(vector["key"]))
        words = [prf.prf_u32(key, vector["context"], token) for token in vector["tokens"]]
        assert words == vector["words"]


def test_every_backend_matches_the_vectors(backend):
    for vector in VECTOR_LIST:
        key, context = key_words(vector["key"]), np.array([vector["context"]], np.uint32)
        context_keys = key_words(vector["context_key"])[None] if vector["context_key"] else None
        tokens, words = np.array(vector["tokens"], np.uint32), vector["words"]
        nonce = backend.nonces(context, context_keys)
        assert nonce.shape == (3, 1)
        assert backend.words_at(key, np.repeat(nonce, len(tokens), 1), tokens).tolist() == words
        assert backend.words_among(key[None], nonce, tokens[None])[0].tolist() == words
        row = backend.words_rows(key[None], nonce, 512)[0]
        assert [row[token] for token in tokens if token < 512] == words[: (tokens < 512).sum()]


def test_the_context_key_of_a_key_is_the_one_of_the_vectors():
    for vector in VECTOR_LIST:
        words = prf.context_key_words(SecretKey(bytes.fromhex(vector["key"])), len(vector["context"]))
        assert (words is None) == (vector["context_key"] is None)
        assert words is None or (words == key_words(vector["context_key"])).all()


# ----------------------------------------------------------------------- three entry points, one definition

EDGES = st.builds(
    lambda base, multiple, step: max(1, base * multiple + step),
    st.sampled_from([16, 256]),
    st.integers(0, 5),
    st.integers(-1, 1),
)


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(vocabulary=EDGES, rows=st.integers(1, 3), width=st.integers(0, 7), seed=st.integers(0, 2**32 - 1))
def test_rows_candidates_and_pairs_agree(name, vocabulary, rows, width, seed):
    backend = BACKENDS[name]()
    rng = np.random.default_rng(seed)
    keys, context_keys = rng.integers(0, 2**32, (2, rows, 8), dtype=np.uint32)
    contexts = rng.integers(0, 2**32, (rows, width), dtype=np.uint32)
    nonce = backend.nonces(contexts, context_keys)
    whole = backend.words_rows(keys, nonce, vocabulary)
    assert whole.shape == (rows, vocabulary)

    tokens = rng.integers(0, vocabulary, (rows, 17), dtype=np.uint32)
    tokens[:, 0] = vocabulary - 1
    expected = np.take_along_axis(whole, tokens.astype(np.int64), 1)
    assert (backend.words_among(keys, nonce, tokens) == expected).all()
    for row in range(rows):
        one = np.repeat(nonce[:, [row]], 17, axis=1)
        assert (backend.words_at(keys[row], one, tokens[row]) == expected[row]).all()
        assert (prf.words_at_reference(keys[row], one, tokens[row]) == expected[row]).all()


def test_long_runs_of_pairs_agree_with_the_reference(backend):
    """5,003 pairs: past where numba starts its threads, and no multiple of any chunk."""
    rng = np.random.default_rng(5)
    key, n = rng.integers(0, 2**32, 8, dtype=np.uint32), 5003
    nonce, tokens = (
        rng.integers(0, 2**32, (3, n), dtype=np.uint32),
        rng.integers(0, 2**32, n, dtype=np.uint32),
    )
    assert (backend.words_at(key, nonce, tokens) == prf.words_at_reference(key, nonce, tokens)).all()


def test_one_context_key_for_all_rows_is_the_same_as_one_for_each(backend):
    rng = np.random.default_rng(6)
    contexts, key = (
        rng.integers(0, 2**32, (9, 5), dtype=np.uint32),
        rng.integers(0, 2**32, 8, dtype=np.uint32),
    )
    assert (prf.nonces(contexts, key) == backend.nonces(contexts, np.tile(key, (9, 1)))).all()


def test_a_long_context_without_its_key_is_refused(backend):
    with pytest.raises(ValueError, match="context key"):
        backend.nonces(np.zeros((1, 4), np.uint32), None)


# ---------------------------------------------------------------------------------------------- randomness

SEED = np.random.default_rng(8439)
KEYS = SEED.integers(0, 2**32, (8, 8), dtype=np.uint32)
NONCES = SEED.integers(0, 150_000, (3, 8), dtype=np.uint32)


def chi_squared_pvalue(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(gammaincc((counts.size - 1) / 2, ((counts - expected) ** 2 / expected).sum() / 2))


def test_bytes_and_neighbouring_bits_of_the_words_are_uniform():
    words = prf.words_rows(KEYS, NONCES, 1 << 17)
    for byte in range(4):
        counts = np.bincount(((words >> np.uint32(8 * byte)) & 0xFF).ravel(), minlength=256)
        assert 1e-4 < chi_squared_pvalue(counts) < 1 - 1e-4
    # The highest bytes of neighbours, in one block and across its border: 2^16 cells.
    high = (words >> np.uint32(24)).astype(np.int64)
    pairs = np.bincount((high[:, :-1] * 256 + high[:, 1:]).ravel(), minlength=1 << 16)
    assert 1e-4 < chi_squared_pvalue(pairs) < 1 - 1e-4


@pytest.mark.parametrize("part", ["key", "context", "token"])
def test_one_bit_of_input_changes_half_of_the_output(part):
    rng = np.random.default_rng(9)
    changed = []
    for _ in range(200):
        key = rng.integers(0, 2**32, 8, dtype=np.uint32)
        nonce, tokens = (
            rng.integers(0, 2**32, (3, 32), dtype=np.uint32),
            rng.integers(0, 2**32, 32, dtype=np.uint32),
        )
        before = prf.words_at(key, nonce, tokens)
        flip = np.uint32(1) << np.uint32(rng.integers(32))
        array = {"key": key, "context": nonce, "token": tokens}[part]
        array[rng.integers(len(array)) if part != "token" else slice(None)] ^= flip
        changed.append(np.bitwise_count(before ^ prf.words_at(key, nonce, tokens)).mean())
    # 6,400 words of 32 fair bits: a standard deviation of 0.035 about 16.
    assert abs(np.mean(changed) - 16) < 5 * 0.0354


# -------------------------------------------------------------------------------------- 32 bits are enough
#
# A choice made with u = (word + 1/2) / 2^B in place of a continuous u is off by at most V 2^-(B+1) in total
# variation: exchange the V uniforms one by one. The distribution function of -log u shifts by at most
# 2^-(B+1) anywhere (it counts midpoints of cells), and that is the most that one exchange moves between its
# token and the others. For 2^18 tokens and 32 bits the bound is 2^-15 = 3.1e-5.


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_the_bound_on_the_choice_holds_by_enumeration_at_few_bits(bits):
    rng = np.random.default_rng(bits)
    u = (np.arange(2**bits) + 0.5) / 2**bits
    for p in [np.full(3, 1 / 3), *rng.dirichlet([0.5, 0.5, 0.5], size=5)]:
        race = [np.log(p_v) - np.log(-np.log(u)) for p_v in p]
        choices = np.argmax(np.stack(np.meshgrid(*race, indexing="ij")), axis=0)
        law = np.bincount(choices.ravel(), minlength=3) / choices.size
        assert np.abs(law - p).sum() / 2 <= 3 * 2.0 ** -(bits + 1)


def test_32_bits_move_a_uniform_choice_among_262144_tokens_by_less_than_1e_4():
    """Exactly: what is off are ties, which the earlier token wins: most at P(choice < V / 2) - 1 / 2."""
    V, N, m = 1 << 18, 2.0**32, 1 << 17
    k = np.arange(50 * (1 << 14), dtype=np.float64)  # steps below the highest word; beyond lies a mass of e^-50
    at, below = np.log1p(-k / N), np.log1p(-(k + 1) / N)
    first_half_wins = (-np.expm1(m * (below - at)) * np.exp(V * at)).sum()
    # By hand: the halves tie with probability sum_k (m/N)^2 e^(-2mk/N) = m / 2N, and half of that is unfair.
    assert first_half_wins - m / V == pytest.approx(m / (4 * N), rel=1e-2)
    assert first_half_wins - m / V < V * 2.0**-33 < 1e-4


@pytest.mark.parametrize("tail", [0.3, 1e-3, 1e-5])
def test_32_bits_keep_the_mass_of_a_long_tail(tail):
    """Exactly: a head against 2^18 tokens that share the tail, each worth few or no steps of 2^-32."""
    V, N = 1 << 18, 2.0**32
    ratio = tail / V / (1 - tail)
    # A head at -log u = x loses to a tail token at -log u = y < ratio x. Those are the k highest words while
    # x is in [y_(k-1), y_k) / ratio, y_k belonging to the word k below the highest. It wins with (1 - k/N)^V.
    k = np.arange(int(ratio * 24 * N) + 2, dtype=np.float64)
    edges = np.exp(np.log1p(-(k + 0.5) / N) / ratio)
    words_above = np.concatenate([[0.0], np.round((1 - edges) * N)])
    wins = (np.diff(words_above) / N * np.exp(V * np.log1p(-k / N))).sum()
    assert abs(wins - (1 - tail)) < V * 2.0**-33 < 1e-4


if __name__ == "__main__":
    about = "Words of prf_u32(key, context, token): keys in hex, contexts oldest token first, 4294967295 missing."
    lines = ",\n".join(json.dumps(vector) for vector in make_vectors())
    VECTORS.write_text(f'{{"about": {json.dumps(about)},\n"vectors": [\n{lines}\n]}}\n')
