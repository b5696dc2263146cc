"""Settings from a file and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from watermark.engines.hook.settings import Settings, load_settings
from watermark.errors import DyetraceError


def _toml(folder: Path, text: str) -> dict[str, str]:
    (folder / "dyetrace.toml").write_text(text)
    return {"DYETRACE_CONFIG": str(folder / "dyetrace.toml")}


BOTH = 'spec = "s.json"\nkey = "file:k"\n'


def test_nothing_given_means_not_configured() -> None:
    assert load_settings({}) is None
    assert load_settings({"PATH": "/bin", "DYETRACE_CACHE": "/tmp"}) is None


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "dyetrace.json").write_text('{"spec": "s.json", "key": "file:k", "tenants": ["a", "b"]}')
    from_json = load_settings({"DYETRACE_CONFIG": str(tmp_path / "dyetrace.json")})
    assert from_json == load_settings(_toml(tmp_path, BOTH + 'tenants = ["a", "b"]'))
    assert from_json == Settings(spec="s.json", key="file:k", tenants=["a", "b"])


def test_the_environment_overrides_the_file_and_reads_numbers_flags_and_lists(tmp_path: Path) -> None:
    variables = _toml(tmp_path, BOTH + "allow_off = false\nwatch_tokens = 512") | {
        "DYETRACE_ALLOW_OFF": "true",
        "DYETRACE_WATCH_TOKENS": "2048",
        "DYETRACE_FRESH_SHARE": "0.25",
        "DYETRACE_TENANTS": "acme, beta ,",
        "DYETRACE_SPEC": "other.json",
    }
    found = load_settings(variables)
    assert found is not None
    assert (found.allow_off, found.watch_tokens, found.fresh_share) == (True, 2048, 0.25)
    assert (found.tenants, found.spec, found.key) == (["acme", "beta"], "other.json", "file:k")


def test_the_environment_alone_is_enough() -> None:
    found = load_settings({"DYETRACE_SPEC": "s.json", "DYETRACE_KEY": "env:K"})
    assert found == Settings(spec="s.json", key="env:K")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOTH + "watch = 1", "watch"),
        ('spec = "s.json"', "key"),
        (BOTH + 'on_unmarkable = "ignore"', "on_unmarkable"),
        (BOTH + "fresh_share = 1.0", r"fresh_share must lie in \[0, 1\)"),
        (BOTH + "watch_tokens = 10", "watch_tokens must be 0, or at least 256"),
        (BOTH + "ledger_megabytes = 0", "at least 1"),
        (BOTH + 'tenants = ["a b"]', "dyetrace.toml"),
        (BOTH + "key = 3", "neither TOML nor JSON"),
        ("[", "neither TOML nor JSON"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DyetraceError, match=why) as error:
        load_settings(_toml(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DyetraceError, match=r"/nowhere/dyetrace\.toml"):
        load_settings({"DYETRACE_CONFIG": "/nowhere/dyetrace.toml"})


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DyetraceError, match="table of fields"):
        load_settings({"DYETRACE_CONFIG": str(tmp_path / "list.json")})


def test_the_key_source_is_never_shown() -> None:
    shown = repr(Settings(spec="s.json", key="cmd:vault read hunter2"))
    assert "hunter2" not in shown
    assert "s.json" in shown


def test_a_wrong_value_of_the_key_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError) as error:
        load_settings(_toml(tmp_path, 'spec = "s.json"\nkey = ["hunter2"]'))
    assert "hunter2" not in str(error.value)
