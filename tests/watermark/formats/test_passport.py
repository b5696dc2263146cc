"""A configuration of another system gives the spec's parameters and the key, and a wrong one a line that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watermark.errors import DyetraceError
from watermark.formats.passport import read_passport
from watermark.registry import format_names

SYNTHID: dict[str, Any] = {
    "watermarking_config": {
        "ngram_len": 5,
        "keys": [654, 400, 836, 123, 340, 443, 597, 160, 57, 29],
        "context_history_size": 1024,
        "sampling_table_seed": 0,
        "sampling_table_size": 65536,
        "skip_first_ngram_calls": False,
        "debug_mode": False,
    }
}
KGW: dict[str, Any] = {
    "do_sample": True,
    "eos_token_id": 2,
    "watermarking_config": {
        "greenlist_ratio": 0.5,
        "bias": 2.5,
        "hashing_key": 15485863,
        "seeding_scheme": "lefthash",
        "context_width": 1,
    },
}
CASES: list[tuple[str, Any, dict[str, Any], tuple[int, ...]]] = [
    ("vllm-gumbel", {"algorithm": "gumbel", "key": 42}, {"context_width": 4}, (42,)),
    ("vllm-gumbel", {"key": 2**64 - 1, "context_width": 2, "prf": "philox"}, {"context_width": 2}, (2**64 - 1,)),
    ("vllm-dual-key-gumbel", {"algorithm": "dual_key_gumbel", "key": 7, "alpha": 0.25}, {"alpha": 0.25}, (7,)),
    ("sglang", {"key": "0xDEADBEEF", "context_window": 3, "enforce_all": True}, {"context_width": 3}, (0xDEADBEEF,)),
    (
        "sglang-two-keys",
        {"key": "a1", "key_b": "B2", "mixing_probability": 0.7},
        {"mixing_probability": 0.7},
        (161, 178),
    ),
    ("transformers-kgw-lefthash", KGW, {"gamma": 0.5, "vocabulary_size": 32_000}, (15485863,)),
    (
        "transformers-kgw-selfhash",
        KGW["watermarking_config"] | {"seeding_scheme": "selfhash", "context_width": 4},
        {"window": 4, "gamma": 0.5},
        (15485863,),
    ),
    (
        "transformers-synthid",
        SYNTHID,
        {"context_width": 4, "depth": 10, "key_bits": 10},
        tuple(SYNTHID["watermarking_config"]["keys"]),
    ),
    ("markllm-kgw", {"algorithm_name": "KGW", "hash_key": 5, "prefix_length": 2}, {"context_width": 2}, (5,)),
    ("lm-watermarking", {"hash_key": 99, "seeding_scheme": "simple_1"}, {"seeding_scheme": "simple_1"}, (99,)),
]


@pytest.mark.parametrize(("name", "config", "parameters", "native"), CASES)
def test_a_systems_own_file_is_understood(
    name: str, config: Any, parameters: dict[str, Any], native: tuple[int, ...]
) -> None:
    scheme, key = read_passport(name, json.dumps(config).encode(), "c.json", vocabulary_size=32_000)
    assert {field: getattr(scheme, field) for field in parameters} == parameters
    assert (key.format, key.native) == (name, native)


@pytest.mark.parametrize("name", format_names())
def test_a_key_alone_and_the_systems_defaults_do_as_well(name: str) -> None:
    depth = {"transformers-synthid": 3, "synthid-text": 3}.get(name)
    given = {} if depth is None else {"depth": depth}
    text = "5,6,7" if depth else "11,12" if name == "sglang-two-keys" else "11"
    scheme, key = read_passport(name, text.encode() + b"\n", "key.txt", given, 1_000)
    assert key.native and scheme.name == name


def test_what_is_given_beside_the_file_comes_first() -> None:
    scheme, _ = read_passport("vllm-gumbel", b'{"key": 1, "context_width": 4}', "c", {"context_width": 2})
    assert scheme.context_width == 2


SECRET = 918273645
REFUSED: list[tuple[str, bytes, str]] = [
    ("vllm-gumbel", b'{"algorithm": "gumbel"}', "c.json lacks the field 'key' of the key"),
    ("vllm-gumbel", b'{"algorithm": "dual_key_gumbel", "key": 918273645}', "its algorithm is 'dual_key_gumbel'"),
    ("vllm-gumbel", b'{"key": -918273645}', "a key of vLLM is a decimal number"),
    ("vllm-gumbel", b'{"key": "918273645x"}', "a key of vLLM is a decimal number"),
    ("vllm-gumbel", b'{"key": 918273645, "context_width": "wide"}', "Expected `int`"),
    ("vllm-gumbel", b'{"key": 918273645', "is not valid JSON"),
    ("vllm-gumbel", b"", "is empty"),
    ("vllm-gumbel", b"\xff\xfe\x00", "is not UTF-8 text"),
    ("vllm-gumbel", b"{" + b" " * (1 << 20), "too large"),
    ("sglang", b'{"key": "1", "key_b": "918273645"}', "not of format 'sglang': its key_b is set"),
    ("sglang-two-keys", b'{"key": "918273645"}', "lacks the field 'key_b'"),
    ("sglang", b'{"key": "918273645z"}', "a key of SGLang is"),
    ("transformers-kgw-lefthash", b'{"eos_token_id": 2}', "has no 'watermarking_config'"),
    ("transformers-kgw-lefthash", b'{"watermarking_config": [918273645]}', "must be a JSON object"),
    ("transformers-kgw-selfhash", json.dumps(KGW).encode(), "its seeding_scheme is 'lefthash'"),
    ("transformers-kgw-lefthash", b"918273645", "needs vocabulary_size, which c.json doesn't hold"),
    ("transformers-synthid", b'{"watermarking_config": {"keys": "918273645", "ngram_len": 5}}', "its keys is not as"),
    ("nonsense", b"918273645", "no format is called 'nonsense'"),
]


@pytest.mark.parametrize(("name", "data", "message"), REFUSED)
def test_what_is_wrong_is_one_line_that_shows_no_key(name: str, data: bytes, message: str) -> None:
    with pytest.raises(DyetraceError) as error:
        read_passport(name, data, "c.json")
    said = str(error.value)
    assert message in said and "\n" not in said
    assert str(SECRET) not in said
