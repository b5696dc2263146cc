"""Watermark what a language model says: keys, specs, schemes and the hook that generates.

This is the public surface. Importing it loads nothing else; each name loads its module when it is first used, so
that ``import watermark`` is quick and needs neither torch nor transformers.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watermark.commitment import commit as commit
    from watermark.commitment import verify as verify
    from watermark.engines.transformers.processor import WatermarkConfig as WatermarkConfig
    from watermark.errors import DyetraceError as DyetraceError
    from watermark.keys import KeyRing as KeyRing
    from watermark.keys import SecretKey as SecretKey
    from watermark.keys import TenantKey as TenantKey
    from watermark.keys import load_key as load_key
    from watermark.keys import load_master as load_master
    from watermark.keys import write_key_file as write_key_file
    from watermark.models.tokenizer import tokenizer_fingerprint as tokenizer_fingerprint
    from watermark.models.tokenizer import vocabulary_size as vocabulary_size
    from watermark.prf import prf_u32 as prf_u32
    from watermark.registry import make_scheme as make_scheme
    from watermark.registry import scheme_names as scheme_names
    from watermark.schemes.protocol import Scheme as Scheme
    from watermark.spec import WatermarkSpec as WatermarkSpec
    from watermark.spec import load_spec as load_spec
    from watermark.spec import write_spec as write_spec

DISTRIBUTION = "dyetrace"
"""Tells this package from others of its name: `detect` looks for it."""

_HOMES = {
    "DyetraceError": "watermark.errors",
    "KeyRing": "watermark.keys",
    "Scheme": "watermark.schemes.protocol",
    "SecretKey": "watermark.keys",
    "TenantKey": "watermark.keys",
    "WatermarkConfig": "watermark.engines.transformers.processor",
    "WatermarkSpec": "watermark.spec",
    "commit": "watermark.commitment",
    "load_key": "watermark.keys",
    "load_master": "watermark.keys",
    "load_spec": "watermark.spec",
    "make_scheme": "watermark.registry",
    "prf_u32": "watermark.prf",
    "scheme_names": "watermark.registry",
    "tokenizer_fingerprint": "watermark.models.tokenizer",
    "verify": "watermark.commitment",
    "vocabulary_size": "watermark.models.tokenizer",
    "write_key_file": "watermark.keys",
    "write_spec": "watermark.spec",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # type checkers read the imports above, and so still see misspelt names

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if missing not in {"torch", "transformers"}:
                raise
            raise ImportError(f"{name} needs {missing}: pip install 'dyetrace[model]'") from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def _refuse_overwritten_detect() -> None:
    """Raise ImportError where our `detect`, which imports us now, was overwritten by another distribution."""
    detect = sys.modules.get("detect")
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "detect")
    if detect is None or getattr(detect, "DISTRIBUTION", None) == DISTRIBUTION:
        return
    if ours in getattr(detect, "__path__", ()):
        raise ImportError(
            f"the package 'detect' in {ours} is not dyetrace's own: another distribution of that name wrote over "
            "it; install dyetrace in a virtual environment of its own"
        )


_refuse_overwritten_detect()
