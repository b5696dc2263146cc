"""Logs of served answers: what is read of them, and what is refused because a twin of another law convicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.watermark.twins.pairs import KEY
from watermark.errors import DyetraceError
from watermark.twins.logged import Logged, Stated, read_logged

SETTINGS = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 64}
ALL = Stated(temperature=0.8, top_p=0.95, max_tokens=64)


def log(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "served.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def read(tmp_path: Path, *lines: Any, stated: Stated = ALL) -> list[Logged]:
    return read_logged(log(tmp_path, *lines), KEY, stated)


def test_an_answer_of_generate_gets_its_settings_from_what_is_stated(tmp_path: Path) -> None:
    (one,) = read(tmp_path, {"id": "0", "prompt": "Why?", "text": "So.", "prompt_token_ids": [1], "token_ids": [5, 2]})
    assert one.request == {"prompt": "Why?", "temperature": 0.8, "top_p": 0.95, "top_k": 0, "max_tokens": 64}
    assert (one.answer.text, one.answer.finish_reason, one.counted) == ("So.", "stop", True)
    (cut,) = read(tmp_path, {"prompt": "Why?", "text": "So", "token_ids": [5] * 64})
    assert cut.answer.finish_reason == "length"


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "user", "content": "Why?"}], "response": "So.", "finish_reason": "stop", **SETTINGS},
        {
            "request": {"messages": [{"role": "user", "content": "Why?"}], **SETTINGS},
            "response": {"choices": [{"message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}]},
        },
        {
            "body": {"messages": [{"role": "user", "content": "Why?"}], **SETTINGS},
            "response": {"body": {"choices": [{"message": {"content": "So."}, "finish_reason": "stop"}]}},
        },
    ],
)
def test_logs_of_servers_are_read_in_each_of_their_forms(tmp_path: Path, line: dict[str, Any]) -> None:
    (one,) = read(tmp_path, line, stated=Stated())
    assert one.chat == [{"role": "user", "content": "Why?"}]
    assert (one.answer.text, one.answer.finish_reason, one.counted) == ("So.", "stop", False)
    assert {name: one.request[name] for name in SETTINGS} == SETTINGS


def test_a_system_prompt_that_is_stated_is_part_of_the_request(tmp_path: Path) -> None:
    stated = Stated(temperature=0.8, top_p=0.95, max_tokens=64, system="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    plain, chat = read(
        tmp_path,
        {"prompt": "Why?", "text": "So."},
        {"messages": [system, {"role": "user", "content": "Why?"}], "text": "So."},
        stated=stated,
    )
    assert plain.chat == chat.chat == [system, {"role": "user", "content": "Why?"}]


def test_ids_rest_on_prompts_and_never_on_answers_and_stay_when_the_log_grows(tmp_path: Path) -> None:
    first = read(tmp_path, {"prompt": "a", "text": "x"}, {"prompt": "a", "text": "y"}, {"prompt": "b", "text": "z"})
    other = read(tmp_path, *({"prompt": p, "text": t} for p, t in (("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"))))
    assert [one.id for one in first] == [one.id for one in other[:3]]
    assert len({one.id for one in other}) == 4


def test_lines_without_times_are_in_the_order_of_time(tmp_path: Path) -> None:
    found = read(tmp_path, *({"prompt": f"{i}", "text": "x"} for i in range(20)))
    assert [one.made for one in found] == sorted({one.made for one in found})
    (dated,) = read(tmp_path, {"prompt": "a", "text": "x", "created": 0})
    assert dated.made == "1970-01-01T00:00:00.000000+00:00"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is not a JSON object"),
        ({"text": "x"}, "has no prompt"),
        ({"prompt": "a"}, "has no answer"),
        ({"prompt": "a", "response": {"choices": []}}, "exactly one choice"),
        ({"messages": [{"role": "user"}], "text": "x"}, "has no prompt"),
        ({"prompt": "a", "text": "x", "temperature": 0.9}, "served with temperature 0.9, and --temperature says 0.8"),
        ({"prompt": "a", "text": "x", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "text": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "text": "x", "token_ids": [1] * 65}, "65 tokens, and"),
        ({"prompt": "a", "text": "x", "token_ids": ["1"]}, "list of token ids"),
        ({"prompt": "a", "text": "x", "made": "yesterday"}, "ISO 8601"),
    ],
)
def test_a_line_that_is_no_served_answer_is_refused_with_its_place(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(DyetraceError) as refused:
        read(tmp_path, line)
    assert says in str(refused.value) and "served.jsonl, line 1" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lacking", SETTINGS)
def test_a_setting_that_nobody_states_is_asked_for_and_not_guessed(tmp_path: Path, lacking: str) -> None:
    rest = {name: value for name, value in SETTINGS.items() if name != lacking}
    with pytest.raises(DyetraceError, match=f"give --{lacking.replace('_', '-')}"):
        read(tmp_path, {"prompt": "a", "text": "x", **rest}, stated=Stated())


def test_another_system_prompt_than_the_log_s_is_refused(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "A."}, {"role": "user", "content": "b"}]
    with pytest.raises(DyetraceError, match="another system prompt"):
        read(tmp_path, {"messages": messages, "text": "x", **SETTINGS}, stated=Stated(system="B."))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe"])
def test_a_file_without_answers_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "served.jsonl"
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match=r"served\.jsonl"):
        read_logged(path, KEY, ALL)
    with pytest.raises(DyetraceError, match="cannot read"):
        read_logged(tmp_path / "none.jsonl", KEY, ALL)
