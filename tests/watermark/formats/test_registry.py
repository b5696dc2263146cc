"""Formats are found by name, keep the protocol, and a spec of one holds nothing but what is its own."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
import types
from typing import Any, ClassVar

import numpy as np
import pytest

from watermark.errors import DyetraceError
from watermark.formats.protocol import Format, is_exact, is_format, reads_prompt
from watermark.formats.vllm_gumbel import VllmGumbel
from watermark.laws import Hypoexponential
from watermark.registry import FORMATS, format_names, load_format, make_scheme, scheme_names
from watermark.spec import WatermarkSpec, parse_spec

VOCABULARY = 1_000


def made(name: str, **parameters: Any) -> Format:
    wanted = {field.name for field in dataclasses.fields(load_format(name))}
    sizes = {"vocabulary_size": VOCABULARY} if "vocabulary_size" in wanted else {}
    scheme = make_scheme(name, sizes | parameters)
    assert is_format(scheme)
    return scheme


def spec(name: str, **changes: Any) -> WatermarkSpec:
    scheme = made(name)
    fields = {
        "scheme": name,
        "parameters": dataclasses.asdict(scheme),  # type: ignore[call-overload]
        "context_width": scheme.context_width,
        "subkeys": 1,
        "vocabulary_size": VOCABULARY,
        "tokenizer": "t",
        "key_fingerprint": "k",
    }
    return WatermarkSpec(**(fields | changes))


@pytest.mark.parametrize("name", format_names())
def test_every_format_keeps_the_protocol(name: str) -> None:
    scheme = made(name)
    assert isinstance(scheme, Format)
    assert scheme.name == name
    assert type(scheme).__name__ == "".join(part.capitalize() for part in name.split("-"))
    assert scheme.exact != bool(scheme.why_not_exact)
    assert scheme.system and scheme.licence and scheme.seed_bits >= 0
    assert is_exact(scheme) == scheme.exact
    rng = np.random.default_rng(0)
    key = scheme.draw_key(bytes(range(32)))
    assert key == scheme.draw_key(bytes(range(32))) != scheme.draw_key(bytes(32))
    for n in (0, 7):
        contexts = rng.integers(0, VOCABULARY, (n, scheme.context_width))
        contexts[: n // 2, :1] = -1
        tokens = rng.integers(0, VOCABULARY, n)
        words: Any = scheme.words(key, contexts, tokens)
        assert words.shape == (n,)
        assert words.dtype == (np.uint64 if isinstance(scheme.law, Hypoexponential) else np.uint32)
        assert scheme.statistic(words).dtype == np.int64
        assert scheme.inputs(key, contexts, tokens).shape == (n,)


@pytest.mark.parametrize("name", format_names())
def test_tuples_of_one_input_share_their_word(name: str) -> None:
    """What counts once must be one piece of evidence; the converse is what calibration shows."""
    scheme = made(name)
    rng = np.random.default_rng(1)
    contexts, tokens = rng.integers(0, 30, (4_000, scheme.context_width)), rng.integers(0, 30, 4_000)
    key = scheme.draw_key(bytes(32))
    words: Any = scheme.words(key, contexts, tokens)
    statistic, inputs = scheme.statistic(words), scheme.inputs(key, contexts, tokens)
    _, first, place = np.unique(inputs, return_index=True, return_inverse=True)
    assert np.array_equal(statistic[first][place], statistic)


@pytest.mark.parametrize("name", format_names())
def test_a_format_is_read_and_never_written(name: str) -> None:
    with pytest.raises(DyetraceError, match=f"{name} is read, not written"):
        made(name).transform(None, None)  # type: ignore[arg-type]


def test_a_spec_of_a_format_reads_back_and_is_another_for_other_parameters() -> None:
    plain = spec("vllm-gumbel")
    assert parse_spec(plain.canonical_json, "x") == plain
    assert plain.spec_id != spec("vllm-gumbel", parameters={"context_width": 3}, context_width=3).spec_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subkeys": 4}, r"subkeys must be 1 for format 'vllm-gumbel' \(got 4\)"),
        ({"global_share": 0.5}, "global_share must be 1"),
        ({"epoch": 2}, "epoch must be 0"),
        ({"context_width": 2}, "context_width must be 4"),
        ({"parameters": {"window": 3}}, "has no parameter 'window'"),
    ],
)
def test_a_spec_with_what_a_format_lacks_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DyetraceError, match=message):
        spec("vllm-gumbel", **changes)


def test_green_lists_of_fewer_tokens_than_the_tokenizer_has_are_refused() -> None:
    with pytest.raises(DyetraceError, match="must be that of the model's output"):
        spec("transformers-kgw-lefthash", vocabulary_size=VOCABULARY + 1)


def test_an_unknown_name_lists_what_there_is() -> None:
    for look in (load_format, lambda name: make_scheme(name, {})):
        with pytest.raises(DyetraceError, match=r"'vllm-gumble'.*vllm-gumbel"):
            look("vllm-gumble")
    assert "vllm-gumbel" not in scheme_names()


@dataclasses.dataclass(frozen=True)
class Theirs(VllmGumbel):
    name: ClassVar[str] = "their-gumbel"
    reads_prompt: ClassVar[bool] = False


def test_a_third_party_may_register_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("their_formats")
    module.Theirs = Theirs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_formats", module)
    real = importlib.metadata.entry_points
    theirs = [
        importlib.metadata.EntryPoint("their-gumbel", "their_formats:Theirs", FORMATS.group),
        importlib.metadata.EntryPoint("broken", "their_formats:Nothing", FORMATS.group),
    ]

    def entry_points(**wanted: Any) -> Any:
        if wanted.get("group") != FORMATS.group:
            return real(**wanted)
        return importlib.metadata.EntryPoints(theirs).select(**wanted)

    monkeypatch.setattr("watermark.registry.entry_points", entry_points)
    assert "their-gumbel" in format_names()
    scheme = make_scheme("their-gumbel", {"context_width": 3})
    assert is_format(scheme) and not reads_prompt(scheme)
    with pytest.raises(DyetraceError, match="format 'broken' is installed as their_formats:Nothing but cannot be"):
        load_format("broken")
