"""API keys are read where watermark keys are read, and show nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path

import pytest

from detect.student.asking.credentials import ApiKey, load_api_key
from watermark.errors import DyetraceError

SECRET = "sk-proj-0123456789abcdef/+x"


def test_keys_come_from_files_variables_and_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.key"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    monkeypatch.setenv("SUSPECT_KEY", SECRET)
    for source in (f"file:{path}", "env:SUSPECT_KEY", f"cmd:cat {path}"):
        assert load_api_key(source).header() == ("authorization", f"Bearer {SECRET}")


def test_no_message_shows_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", f"{SECRET} {SECRET}")
    monkeypatch.setenv("EMPTY", " ")
    public = tmp_path / "public.key"
    public.write_text(SECRET)
    public.chmod(0o644)
    pasted = (SECRET, f"env:{SECRET}", f"file:{SECRET.partition('/')[0]}", f"key:{SECRET}", "env:hf_" + "a" * 30)
    for source in (*pasted, "env:BROKEN", "env:EMPTY", "env:MISSING", f"file:{public}", "file:/missing", "cmd:false"):
        with pytest.raises(DyetraceError) as caught:
            load_api_key(source)
        message = str(caught.value)
        assert "0123456789" not in message and "a" * 30 not in message and "\n" not in message
        assert "0123456789" not in "".join(traceback.format_exception(caught.value))


def test_a_key_hides_from_printing_and_pickling() -> None:
    key = ApiKey(SECRET)
    assert SECRET not in repr(key) + str(key) + f"{key}" and SECRET not in repr({"key": key})
    assert copy.copy(key) is key and copy.deepcopy([key])[0] is key
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)


def test_a_quoted_key_is_redacted_in_every_spelling() -> None:
    key = ApiKey(SECRET)
    for text in (SECRET, SECRET.replace("/", "\\/"), "sk-proj-0123456789abcdef%2F%2Bx"):
        assert key.redact(f"Incorrect key {text}!".encode()) == b"Incorrect key [redacted]!"
    assert ApiKey("ollama").redact(b'{"model": "ollama"}') == b'{"model": "ollama"}'
