"""The registry of foreign formats: marks that other systems write and that dyetrace reads with those systems' keys.

How to add a format
-------------------
One file with one frozen dataclass, and one line in ``FORMATS`` below (or, in a package of your own, an entry point in
the group ``dyetrace.formats``). The class follows `watermark.formats.protocol.Format`:

1. Fields are what may be published (width, green share, layers, vocabulary size). The key is no field.
2. ``words(key, contexts, tokens)`` is the other system's function, bit for bit and vectorised; ``statistic`` turns
   words into integers, and ``law`` says how these are distributed for a random key (`watermark.laws`).
3. ``inputs(key, contexts, tokens)`` numbers what is really hashed: two tuples that share their word by construction
   (a context of which only the smallest hash counts, a seed cut to 32 bits) must share the number. They count once.
4. ``draw_key(seed)`` draws a key as an operator would, ``parse_key(text)`` reads it as the configuration spells it.
5. Be honest in ``exact``, ``why_not_exact`` and ``seed_bits``: where the words are no match for a cipher, p-values
   come from decoy keys of the format and not from the law (`detect.keyed.calibration`).

A test compares words with the system's own code, and tests/detect/test_formats.py takes the format up by itself:
p-values under fresh keys on prose, code and repetitive text must be uniform or larger. Then ``detect``, ``scan`` and
``trace`` take a spec whose ``scheme`` is the format's name, with a key file from ``dyetrace spec import``.
"""

from __future__ import annotations

from typing import Any

from watermark.errors import DyetraceError
from watermark.registry import Registry

FORMATS = Registry(
    "format",
    "dyetrace.formats",
    {
        "vllm-gumbel": "watermark.formats.vllm_gumbel:VllmGumbel",
        "vllm-dual-key-gumbel": "watermark.formats.vllm_dual_key:VllmDualKeyGumbel",
        "sglang": "watermark.formats.sglang:Sglang",
        "sglang-two-keys": "watermark.formats.sglang:SglangTwoKeys",
        "transformers-kgw-lefthash": "watermark.formats.transformers_kgw:TransformersKgwLefthash",
        "transformers-kgw-selfhash": "watermark.formats.transformers_kgw:TransformersKgwSelfhash",
        "transformers-synthid": "watermark.formats.transformers_synthid:TransformersSynthid",
        "synthid-text": "watermark.formats.synthid_text:SynthidText",
        "lm-watermarking": "watermark.formats.lm_watermarking:LmWatermarking",
        "markllm-kgw": "watermark.formats.markllm:MarkllmKgw",
        "markllm-unigram": "watermark.formats.markllm:MarkllmUnigram",
        "tgi": "watermark.formats.tgi:Tgi",
        "three-bricks": "watermark.formats.three_bricks:ThreeBricks",
        "three-bricks-gumbel": "watermark.formats.three_bricks:ThreeBricksGumbel",
        "textseal-green": "watermark.formats.textseal:TextsealGreen",
        "textseal-gumbel": "watermark.formats.textseal:TextsealGumbel",
        "textseal-dual-key": "watermark.formats.textseal:TextsealDualKey",
        "sbw": "watermark.formats.sbw:Sbw",
    },
)


def format_names() -> list[str]:
    """All formats that a spec may name here."""
    return FORMATS.names()


def load_format(name: str) -> type[Any]:
    """The class of the format ``name``.

    Raises
    ------
    DyetraceError
        No such format, or its package cannot be loaded.
    """
    found = FORMATS.find(name)
    if found is None:
        raise DyetraceError(f"no format is called {name!r}; those known here: {', '.join(format_names())}")
    return found
