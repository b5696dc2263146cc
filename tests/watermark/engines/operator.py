"""What an operator puts in place before a server starts: a spec, a key file, and settings that point to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from watermark.engines.hook.settings import Settings
from watermark.keys import SecretKey, write_key_file
from watermark.spec import WatermarkSpec, write_spec

KEY = SecretKey(bytes(range(32)))
VOCABULARY = 500


def spec_of(**fields: Any) -> WatermarkSpec:
    """A spec of the tests' key and a small vocabulary, without tenants."""
    usual: dict[str, Any] = {"vocabulary_size": VOCABULARY, "tokenizer": "t", "key_fingerprint": KEY.fingerprint}
    return WatermarkSpec(**(usual | fields))


def settings_in(folder: Path, spec: WatermarkSpec, **fields: Any) -> Settings:
    """Write spec and key into a folder."""
    write_spec(folder / "spec.json", spec)
    if not (folder / "key").exists():
        write_key_file(folder / "key", KEY)
    usual: dict[str, Any] = {"spec": str(folder / "spec.json"), "key": f"file:{folder / 'key'}"}
    return Settings(**(usual | fields))
