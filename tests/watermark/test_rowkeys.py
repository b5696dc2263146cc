"""Which key marks which context: by tenant, sub-key and selector, on every device as in plain words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from detect.keyed.owners import owned
from detect.text.distinct import distinct_tuples
from watermark import prf
from watermark.backends import torch_backend
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.rowkeys import RowKeys, selector_threshold, subkey
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(MASTER, tenants=("acme", "zenith"))
CPU = torch.device("cpu")


def spec(width: int = 2, share: float = 0.5) -> WatermarkSpec:
    return WatermarkSpec(
        context_width=width,
        global_share=share,
        vocabulary_size=1000,
        tokenizer="t",
        key_fingerprint=MASTER.fingerprint,
    )


def random_contexts(count: int, width: int, seed: int = 0) -> torch.Tensor:
    ids = np.random.default_rng(seed).integers(0, 2**31, (count, width))
    ids[::7, : width // 2] = prf.MISSING
    return torch.from_numpy(ids)


def owners(made: WatermarkSpec, contexts: torch.Tensor, tenant: str, ring: KeyRing = RING) -> np.ndarray:
    """Whether each context is the global key's, told from the keys that `RowKeys` picks."""
    b = len(contexts)
    keys, _ = RowKeys.of(made, ring, [tenant] * b, [0] * b, CPU).at(contexts)
    assert isinstance(ring.global_key, SecretKey)
    is_global = (keys == subkey(ring.global_key, 0).words).all(1)
    is_tenants = (keys == subkey(ring.tenants[tenant], 0).words).all(1)
    assert (is_global ^ is_tenants).all()
    return is_global


def plain_words(made, ring, tenant, index, context, tokens) -> list[int]:
    """One row, one token at a time, by the primitive alone."""
    mine = ring.global_key
    if tenant is not None and prf.prf_u32(ring.selector, context, 0) >= made.global_share * 2**32:
        mine = ring.tenants[tenant]
    return [prf.prf_u32(mine.derive("subkey", index), context, token) for token in tokens]


# ---------------------------------------------------------------------------------------- as in plain words


@settings(max_examples=40)
@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.sampled_from(["acme", "zenith"]), st.integers(0, 3), st.integers(0, 2**32)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_each_row_is_marked_by_the_primitive_under_its_own_key(width, rows, share):
    made = spec(width, share)
    tenants = [None if share == 1 else tenant for tenant, _, _ in rows]
    subkeys = [index for _, index, _ in rows]
    contexts = torch.cat([random_contexts(1, width, seed) for _, _, seed in rows])
    tokens = [0, 1, 15, 16, 999]
    candidates = np.tile(np.array(tokens, dtype=np.uint32), (len(rows), 1))
    words = prf.words_among(*RowKeys.of(made, RING, tenants, subkeys, CPU).at(contexts), candidates)
    assert words.tolist() == [
        plain_words(made, RING, *row, tokens) for row in zip(tenants, subkeys, contexts.tolist(), strict=True)
    ]


@pytest.mark.parametrize("width", [4, 5, 7])
def test_long_contexts_are_compressed_under_each_rows_own_context_key(width):
    made, contexts = spec(width, 1.0), random_contexts(1, width).repeat(4, 1)
    _, nonces = RowKeys.of(made, RING, [None] * 4, [0, 1, 2, 2], CPU).at(contexts)
    columns = {tuple(column) for column in nonces.T.tolist()}
    assert nonces.shape == (3, 4)
    assert len(columns) == 3


def test_words_across_subkeys_tenants_and_owners_share_nothing():
    context = random_contexts(1, 2)
    tokens = np.arange(200, dtype=np.uint32)[None]
    rows = [spec(share=0.0), *[spec(share=1.0)] * 2]
    tenants = ["acme", None, None]
    words = [
        prf.words_among(*RowKeys.of(made, RING, [tenant], [index], CPU).at(context), tokens)[0]
        for made, tenant, index in zip(rows, tenants, [0, 0, 1], strict=True)
    ]
    assert len(set(np.concatenate(words).tolist())) == 600


# --------------------------------------------------------------------------------------------- the selector


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
def test_the_selector_gives_the_global_key_its_share_of_contexts(width, share):
    n = 3000
    found = owners(spec(width, share), random_contexts(n, width, seed=width), "acme").sum()
    assert abs(found - n * share) < 5 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("width", [2, 5])
def test_the_split_is_the_same_for_every_tenant_and_another_in_the_next_epoch(width):
    contexts = random_contexts(1000, width)
    acme, zenith = (owners(spec(width), contexts, tenant) for tenant in ("acme", "zenith"))
    assert (acme == zenith).all()
    later = owners(spec(width), contexts, "acme", KeyRing.from_master(MASTER, 1, ("acme",)))
    assert abs(int((later == acme).sum()) - 500) < 5 * math.sqrt(250)


def test_a_larger_share_takes_contexts_over_and_gives_none_back():
    contexts = random_contexts(1000, 2)
    small, large = (owners(spec(share=share), contexts, "acme") for share in (0.3, 0.6))
    assert (large >= small).all()
    assert large.sum() > small.sum()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_detection_splits_contexts_as_generation_does(width, share):
    made = spec(width, share)
    ids = np.random.default_rng(3).integers(0, 1000, 600).astype(np.uint32)
    tuples = distinct_tuples(ids, width)
    contexts = torch.from_numpy(tuples.contexts.astype(np.int64))
    detected = owned(made, RING.selector, tuples)[True]
    if share == 1:
        assert detected.all()
    else:
        assert (detected == owners(made, contexts, "acme")).all()


def test_thresholds():
    assert [selector_threshold(spec(share=share)) for share in (0, 0.5, 1)] == [0, 2**31, 2**32]


# -------------------------------------------------------------------------------------------------- devices


def as_on_a_device(keys: RowKeys) -> RowKeys:
    """The same keys held as they are for logits on a device, here in main memory."""
    for name in ("_keys", "_context_keys", "_selector", "_selector_context"):
        words = getattr(keys, name)
        setattr(keys, name, None if words is None else torch_backend.key_tensor(words))
    keys._rows = torch.from_numpy(keys._rows)
    keys._cpu = False
    return keys


def bits(array) -> np.ndarray:
    return array.cpu().numpy().view(np.uint32)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 7])
def test_torch_picks_the_same_keys_and_nonces_as_numpy(width, share):
    if width == 0:
        if share < 1:
            return
        made = WatermarkSpec(
            scheme="green_list", context_width=0, vocabulary_size=9, tokenizer="t", key_fingerprint="k"
        )
    else:
        made = spec(width, share)
    b = 64
    tenants = [None if share == 1 else ("acme", "zenith")[row % 2] for row in range(b)]
    subkeys = [row % 4 for row in range(b)]
    contexts = random_contexts(b, width)
    keys, nonces = RowKeys.of(made, RING, tenants, subkeys, CPU).at(contexts)
    on_device = as_on_a_device(RowKeys.of(made, RING, tenants, subkeys, CPU))
    device_keys, device_nonces = on_device.at(contexts)
    assert (bits(device_keys) == keys).all()
    assert (bits(device_nonces) == nonces).all()
    if torch.cuda.is_available():
        on_gpu = RowKeys.of(made, RING, tenants, subkeys, torch.device("cuda")).at(contexts.cuda())
        assert (bits(on_gpu[0]) == keys).all()
        assert (bits(on_gpu[1]) == nonces).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [2, 5])
def test_picking_keys_never_waits_for_the_device(width, share):
    """On the meta device tensors have no values: whatever would read one raises."""
    meta = torch.device("meta")
    tenants = [None if share == 1 else "acme"] * 3
    keys, nonces = RowKeys.of(spec(width, share), RING, tenants, [0, 1, 2], meta).at(
        torch.zeros((3, width), dtype=torch.int64, device=meta)
    )
    assert keys.shape == (3, 8)
    assert nonces.shape == (3, 3)
    assert keys.device == nonces.device == meta


# ----------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "made, ring, tenant, message",
    [
        (spec(share=1), RING, "acme", "tenant 'acme' was given, but the spec has no tenants"),
        (spec(), RING, None, "each request needs a tenant"),
        (spec(), RING, "nobody", "tenant 'nobody' is not among the keys that were loaded"),
        (
            spec(),
            TenantKey.from_master(MASTER, "acme").ring(),
            "acme",
            "needs the master key, not a tenant's",
        ),
        (spec(share=1), TenantKey.from_master(MASTER, "acme").ring(), None, "needs the master key"),
    ],
)
def test_a_row_that_has_no_key_is_an_error(made, ring, tenant, message):
    with pytest.raises(DyetraceError, match=message):
        RowKeys.of(made, ring, [tenant], [0], CPU)


def test_a_tenants_key_alone_marks_where_all_contexts_are_the_tenants():
    alone = TenantKey.from_master(MASTER, "acme").ring()
    contexts = random_contexts(5, 2)
    ours = RowKeys.of(spec(share=0), alone, ["acme"] * 5, [0] * 5, CPU).at(contexts)
    owners_ = RowKeys.of(spec(share=0), RING, ["acme"] * 5, [0] * 5, CPU).at(contexts)
    assert (ours[0] == owners_[0]).all()
    assert (ours[1] == owners_[1]).all()
