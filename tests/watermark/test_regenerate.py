"""Twins drawn later by a local model: alike in law, once for each answer, refused where the model is another."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.detect.marking_job import MarkingJob, marking_job
from tests.watermark.models.test_prompts import beginning
from tests.watermark.twins.pairs import KEY
from watermark.errors import DyetraceError
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, load_master
from watermark.models.folder import load_model
from watermark.models.prompts import encode_prompt
from watermark.regenerate import MODEL, ON_RECORD, Shown, check_drawable, differing, regenerate
from watermark.spec import load_spec
from watermark.twins.logged import Logged, Stated, read_logged
from watermark.twins.pair import Pair

STATED = Stated(temperature=0.9, top_p=0.95, max_tokens=8)
ENGINE = {"name": "transformers", MODEL: "a" * 64}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MarkingJob:
    return marking_job(tmp_path_factory.mktemp("regenerate"))


@pytest.fixture(scope="module")
def tiny(job: MarkingJob) -> tuple[Any, Any]:
    return load_model(job.model, "float32")


def served(tiny: tuple[Any, Any], path: Path, prompts: list[str], *mark: Any, **how: Any) -> Path:
    """What `dyetrace generate` writes."""
    sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=8, batch=4, seed=1)
    answers = generate_answers(*tiny, prompts, sampling, *mark, **how)
    path.write_bytes(b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))
    return path


@pytest.fixture
def logged(tiny: tuple[Any, Any], tmp_path: Path) -> list[Logged]:
    return read_logged(served(tiny, tmp_path / "s.jsonl", [f"{i} {i + 1}" for i in range(20, 30)]), KEY, STATED)


def drawn(tiny: tuple[Any, Any], logged: list[Logged], **how: Any) -> list[Pair]:
    return [pair for some in regenerate(*tiny, logged, KEY, engine=ENGINE, **how) for pair in some]


def test_each_answer_gets_a_twin_to_the_same_request(tiny: tuple[Any, Any], logged: list[Logged]) -> None:
    pairs = drawn(tiny, logged, batch=4)
    assert [pair.id for pair in pairs] == [one.id for one in logged]
    for one, pair in zip(logged, pairs, strict=True):
        assert (pair.level, pair.proof, pair.served) == ("regenerated", None, 0)
        assert pair.answers[0] == one.answer and pair.request == one.request and pair.made == one.made
        assert len(pair.answers[1].token_ids or []) <= 8
    assert sum(pair.tied for pair in pairs) < len(pairs)


def test_a_run_that_goes_on_draws_the_rest_as_it_would_have_been(tiny: tuple[Any, Any], logged: list[Logged]) -> None:
    whole = drawn(tiny, logged, batch=4)
    have = {pair.id for pair in whole[:6]}  # killed in the middle of the second batch
    assert drawn(tiny, logged, batch=4, have=have) == whole[6:]
    assert drawn(tiny, logged, batch=4, have={pair.id for pair in whole}) == []


def test_served_and_drawn_ends_are_told_by_one_rule(tiny: tuple[Any, Any], logged: list[Logged]) -> None:
    for pair in drawn(tiny, logged):
        for answer in pair.answers:
            assert answer.finish_reason == ("length" if len(answer.token_ids or []) == 8 else "stop")


def test_of_a_twin_no_more_is_said_than_of_the_served_answer(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"prompt": "20 21", "text": "30"}))
    (pair,) = drawn(tiny, read_logged(path, KEY, STATED))
    assert pair.answers[1].token_ids is None and pair.answers[1].finish_reason is None


def test_each_line_is_drawn_with_its_own_settings(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    same = {"text": "30", "token_ids": [30]}
    lines = [{"prompt": f"{i} 4", "max_tokens": 3 + 4 * (i % 2), **same} for i in range(20, 28)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {pair.prompt: pair for pair in drawn(tiny, read_logged(path, KEY, Stated(temperature=1.0, top_p=1.0)))}
    longest = Counter[int]()
    for line in lines:
        length = len(found[str(line["prompt"])].answers[1].token_ids or [])
        assert length <= line["max_tokens"]  # type: ignore[operator]
        longest[line["max_tokens"]] = max(longest[line["max_tokens"]], length)  # type: ignore[index]
    assert longest[3] <= 3 < longest[7]


def test_marked_answers_get_marked_twins_and_no_others_do(
    tiny: tuple[Any, Any], job: MarkingJob, tmp_path: Path
) -> None:
    spec, ring = load_spec(job.spec), KeyRing.from_master(load_master(job.key))
    path = served(tiny, tmp_path / "m.jsonl", [f"{i} {i + 1}" for i in range(20, 28)], spec, ring)
    marked = read_logged(path, KEY, STATED)
    assert len(drawn(tiny, marked, spec=spec, ring=ring)) == 8
    with pytest.raises(DyetraceError, match="is marked by spec"):
        drawn(tiny, marked)
    plain = read_logged(served(tiny, tmp_path / "p.jsonl", ["20 21"]), KEY, STATED)
    with pytest.raises(DyetraceError, match="is not marked"):
        drawn(tiny, plain, spec=spec, ring=ring)


def test_answers_of_another_tokenizer_or_template_are_refused(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    def line(**fields: Any) -> list[Logged]:
        path = tmp_path / "log.jsonl"
        path.write_text(json.dumps({"prompt": "20 21", "text": "30 31", **fields}))
        return read_logged(path, KEY, STATED)

    with pytest.raises(DyetraceError, match="other text under this model's tokenizer"):
        drawn(tiny, line(token_ids=[5, 6]))
    with pytest.raises(DyetraceError, match="the model read other tokens"):
        drawn(tiny, line(prompt_token_ids=[1, 20, 21]))
    with pytest.raises(DyetraceError, match="has no chat template"):
        drawn(tiny, line(prompt=None, messages=[{"role": "user", "content": "20"}]))
    with pytest.raises(DyetraceError, match="repetition_penalty"):
        drawn(tiny, line(repetition_penalty=1.1))


def log_of(path: Path, **fields: Any) -> list[Logged]:
    path.write_text(json.dumps({"prompt": "20 21", "text": "30 31", **fields}))
    return read_logged(path, KEY, STATED)


def test_prompts_are_read_as_the_served_answers_model_read_them(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """With the token that begins a text; and earlier releases left it out, or put one behind raw prompts."""
    path, words = tmp_path / "log.jsonl", beginning()
    assert check_drawable(words, log_of(path), None) == [Shown([1, 20, 21], raw=False)]
    for read, raw in (([1, 20, 21], False), ([20, 21], True), ([1, 20, 21, 2], True)):
        assert check_drawable(words, log_of(path, prompt_token_ids=read), None) == [Shown(read, raw)]
    (one,) = drawn((tiny[0], words), log_of(path, prompt_token_ids=[20, 21]))
    assert one.prompt_token_ids == [20, 21]


def test_a_template_that_writes_the_date_may_have_written_another_one(tmp_path: Path) -> None:
    words, path = beginning("{{ strftime_now('%d %m 26') }} {{ messages[0].content }} 8"), tmp_path / "log.jsonl"
    today = encode_prompt(words, "20 21")
    assert today[-4:] == [26, 20, 21, 8]
    for read in (today, [1, 1, 26, 20, 21, 8]):
        assert check_drawable(words, log_of(path, prompt_token_ids=read), None) == [Shown(read, raw=False)]
    for read in ([1, 1, 26, 20, 22, 8], [*range(100, 140), 26, 20, 21, 8]):
        with pytest.raises(DyetraceError, match="the model read other tokens"):
            check_drawable(words, log_of(path, prompt_token_ids=read), None)


def test_a_template_that_refuses_a_logged_chat_is_named_with_its_line(tmp_path: Path) -> None:
    words = beginning("{{ raise_exception('no critics') }}")
    with pytest.raises(DyetraceError, match=r"line 1: the model's chat template can't take this chat: .*no critics"):
        check_drawable(words, log_of(tmp_path / "log.jsonl"), None)


def test_a_folder_that_asks_for_more_than_is_on_record_is_refused(tiny: tuple[Any, Any], logged: list[Logged]) -> None:
    tiny[0].generation_config.repetition_penalty = 1.2
    try:
        with pytest.raises(DyetraceError, match=r"asks for repetition_penalty, and nothing on record"):
            drawn(tiny, logged)
    finally:
        tiny[0].generation_config.repetition_penalty = None


def test_settings_that_can_t_be_drawn_with_are_refused_with_their_line(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"prompt": "20", "text": "30", "temperature": 0, "top_p": 1, "max_tokens": 5}))
    with pytest.raises(DyetraceError, match="line 1: temperature must be above 0"):
        drawn(tiny, read_logged(path, KEY, Stated()))


def test_another_model_on_record_differs(tiny: tuple[Any, Any], logged: list[Logged]) -> None:
    pairs = drawn(tiny, logged)
    assert differing(pairs) == []
    other = msgspec.structs.replace(pairs[0], engine={**ENGINE, ON_RECORD: "b" * 64})
    (said,) = differing([other, *pairs[1:]])
    assert said.startswith("1 served answers are of another model")
    mixed = msgspec.structs.replace(pairs[0], engine={MODEL: "c" * 64})
    assert "drawn by 2 models" in differing([mixed, *pairs[1:]])[0]
    assert "doesn't say which model" in differing([msgspec.structs.replace(pairs[0], engine={})])[0]
