"""The torch backend beyond `test_prf.py`: devices, dtypes, a context key for each row, no value ever read."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from watermark import prf  # noqa: E402
from watermark.backends import torch_backend as backend  # noqa: E402

RNG = np.random.default_rng(32)
KEYS = RNG.integers(0, 2**32, (3, 8), dtype=np.uint32)
NONCES = RNG.integers(0, 2**32, (3, 3), dtype=np.uint32)
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
]


def test_key_tensor_keeps_the_bits_and_copies():
    frozen = KEYS.copy()
    frozen.flags.writeable = False  # torch warns of arrays that share memory and cannot be written
    tensor = backend.key_tensor(frozen)
    assert tensor.dtype == torch.int32
    assert (tensor.numpy().view(np.uint32) == KEYS).all()
    tensor.zero_()
    assert (frozen == KEYS).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", range(8))
def test_nonces_under_a_context_key_for_each_row(device, width):
    contexts = RNG.integers(0, 2**32, (3, width), dtype=np.uint32)
    contexts[1, : width // 2] = prf.MISSING
    expected = prf.nonces(contexts, KEYS)
    ids = torch.from_numpy(contexts.astype(np.int64)).to(device)
    ours = backend.nonces(ids, backend.key_tensor(KEYS, device))
    assert ours.dtype == torch.int32
    assert (ours.cpu().numpy().view(np.uint32) == expected).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1 << 4, 1 << 15])
def test_rows_in_any_chunks_are_the_reference(monkeypatch, device, chunk):
    monkeypatch.setattr(backend, "_CHUNK", chunk)
    keys, nonce = backend.key_tensor(KEYS, device), backend.key_tensor(NONCES, device)
    ours = backend.words_rows(keys, nonce, 1003)
    assert ours.shape == (3, 1003)
    assert ours.dtype == torch.int64
    assert (ours.cpu().numpy() == prf.words_rows(KEYS, NONCES, 1003)).all()


@pytest.mark.parametrize("device", DEVICES)
def test_tokens_may_be_int32_that_hold_32_bits(device):
    tokens = np.array([[0, 15, 16, 2**31 - 1, 2**31, 2**32 - 1]] * 3, dtype=np.uint32)
    keys, nonce = backend.key_tensor(KEYS, device), backend.key_tensor(NONCES, device)
    expected = prf.words_among(KEYS, NONCES, tokens)
    for ids in (torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(tokens.view(np.int32))):
        assert (backend.words_among(keys, nonce, ids.to(device)).cpu().numpy() == expected).all()


def test_no_function_reads_a_value():
    """On the meta device tensors have no values: whatever would wait for a device raises."""
    keys, nonce = (backend.key_tensor(a).to("meta") for a in (KEYS, NONCES))
    contexts = torch.zeros((3, 5), dtype=torch.int64, device="meta")
    assert backend.nonces(contexts, keys).shape == (3, 3)
    assert backend.words_rows(keys, nonce, 1003).shape == (3, 1003)
    assert backend.words_among(keys, nonce, torch.zeros((3, 4), dtype=torch.int64, device="meta")).shape == (
        3,
        4,
    )
    assert backend.words_at(keys[0], nonce, torch.zeros(3, dtype=torch.int64, device="meta")).shape == (3,)


def test_empty_batches_and_candidates_pass():
    keys, nonce = backend.key_tensor(KEYS), backend.key_tensor(NONCES)
    assert backend.words_rows(keys[:0], nonce[:, :0], 40).shape == (0, 40)
    assert backend.words_among(keys, nonce, torch.zeros((3, 0), dtype=torch.int64)).shape == (3, 0)
    assert backend.nonces(torch.zeros((0, 5), dtype=torch.int64), keys[:0]).shape == (3, 0)
