"""What endpoints send back, as engines and proxies do: reasoning, odd log-probabilities, refusals; by the commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from detect.cli.main import main
from detect.records.reading import read_record
from detect.records.trace import TextsRead, TraceRecord
from detect.student.asking.answers import read_response
from detect.student.asking.plan import SamplingPlan
from tests.detect.replying import Replying, answer
from tests.detect.student.asking.planned import plan
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

KEY = SecretKey(b"a key that everybody knows......")
PROMPTS = [f"Tell me about lighthouse {number}." for number in range(4)]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer: Tokenizer) -> Path:
    """A folder with key, spec and prompts."""
    folder = tmp_path_factory.mktemp("owner")
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(smollm2_tokenizer),
        tokenizer=tokenizer_fingerprint(smollm2_tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    write_key_file(folder / "owner.key", KEY)
    write_spec(folder / "spec.json", spec)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


@pytest.fixture(scope="module")
def marked(owner: Path, tiny_model: tuple[Any, Any]) -> dict[str, str]:
    """Marked text for each prompt: what a suspect that kept its training text by heart would say."""
    spec = msgspec.json.decode((owner / "spec.json").read_bytes(), type=WatermarkSpec)
    sampling = Sampling(max_new_tokens=60, seed=1)
    made = generate_answers(*tiny_model, PROMPTS, sampling, spec, KeyRing.from_master(KEY), chat=False)
    return {str(one.prompt): one.text for one in made}


class Trace:
    """A plan of one server, and the trace by it."""

    def __init__(self, owner: Path, tokenizer: Path, folder: Path, url: str, *more: object) -> None:
        self.folder = folder
        self._keys = ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]
        fixed = ["--model", "student", "--prompts", owner / "prompts.txt", "--max-tokens", 60, *more]
        self.plan = run("trace", "plan", url, *self._keys, *fixed, "-o", folder / "plan.json")
        assert self.plan.exit_code == 0, self.plan.output
        self._tokenizer = tokenizer

    def run(self) -> Result:
        where = ["--tokenizer", self._tokenizer, "--no-pdf", "-o", self.folder / "found"]
        return run("trace", "api", self.folder / "plan.json", *self._keys, *where)

    @property
    def record(self) -> TraceRecord:
        return read_record(TraceRecord, self.folder / "found" / "report.json")


Start = Callable[..., Trace]


@pytest.fixture
def trace(owner: Path, smollm2_dir: Path, tmp_path: Path) -> Start:
    return lambda url, *more: Trace(owner, smollm2_dir, tmp_path, url, *more)


def asked(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


# ------------------------------------------------------------------------------------------------- reasoning

FORMS: list[Callable[[str], dict[str, Any]]] = [
    lambda text: {"content": None, "reasoning_content": text},
    lambda text: {"content": "Yes.", "reasoning": {"content": text, "effort": "high"}},
    lambda text: {"content": [{"type": "thinking", "thinking": text}, {"type": "text", "text": "Yes."}]},
    lambda text: {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": text}}]},
]


def test_marked_reasoning_is_found_whatever_holds_it(trace: Start, marked: dict[str, str]) -> None:
    """Each prompt's answer has it in another form."""
    forms = dict(zip(marked, FORMS, strict=True))

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        text = marked.get(asked(body))
        return 200, answer({"content": "Yes."} if text is None else forms[asked(body)](text))

    with Replying(reply) as server:
        one = trace(server.url, "--samples", 1, "--target", -300)
        result = one.run()
    assert result.exit_code == 0 and "The mark was found" in result.output, result.output
    assert run("report", "verify", one.folder / "found" / "report.json").exit_code == 0
    assert one.record.queries is not None and one.record.queries.answers == 4
    texts = one.record.queries.texts
    assert [texts[kind].answers for kind in ("reasoning", "tool call", "answer")] == [3, 1, 2]
    assert texts["reasoning"].tokens > 150 and texts["tool call"].tokens > 50
    assert one.record.contexts > 200  # nearly all of the four texts'
    shown = " ".join(result.output.split())
    assert f"reasoning (3 answers, {texts['reasoning'].tokens} tokens)" in shown


def test_texts_of_an_answer_are_never_joined(trace: Start, marked: dict[str, str]) -> None:
    """The second half of a marked text is no evidence for a context that begins in the first."""
    halves = {prompt: (text[: len(text) // 2], text[len(text) // 2 :]) for prompt, text in marked.items()}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        one, two = halves.get(asked(body), ("a", "b"))
        return 200, answer({"content": two, "reasoning_content": one})

    with Replying(reply) as server:
        made = trace(server.url, "--samples", 1)
        assert made.run().exit_code == 0
    texts = made.record.queries.texts  # type: ignore[union-attr]
    assert texts.keys() == {"reasoning", "answer"}
    # Of each text the first words have no context.
    assert made.record.contexts <= sum(one.tokens - 2 * one.answers for one in texts.values())


def test_an_innocent_model_that_reasons_is_not_found(trace: Start) -> None:
    words = "The keeper lit the lamp at dusk and wrote each ship down in a book that nobody ever read again."
    with Replying(lambda body: (200, answer({"content": "Yes.", "reasoning_content": words + asked(body)}))) as server:
        made = trace(server.url, "--samples", 1)
        planned = (made.folder / "plan.json").read_text()
        older = planned.replace(
            "each text of an answer (its reasoning and calls of tools are texts of their own)", "each answer"
        )
        assert older != planned  # as plans said from before reasoning was read
        (made.folder / "plan.json").write_text(older)
        result = made.run()
    assert result.exit_code == 0 and "No mark was found" in result.output, result.output
    assert made.record.queries.texts["answer"] == TextsRead(answers=4, tokens=8)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------ log-probabilities


def spelled(*words: str | bytes, top: float = 0.6) -> dict[str, Any]:
    """The chat form's logprobs of tokens: bytes for tokens that are no text; each has one alternative."""
    entries = []
    for word in words:
        raw = word.encode() if isinstance(word, str) else word
        own = {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": math.log(top)}
        other = {"token": " other", "bytes": list(b" other"), "logprob": math.log(0.9 - top)}
        entries.append(own | {"top_logprobs": [own, other]})
    return {"content": entries}


WORDS = [" the", " old", " lamp", " was", " lit", " at", " dusk", " by", " the", " keeper", " of", " this", " light"]
ODD: list[Callable[[list[str]], tuple[dict[str, Any], dict[str, Any]]]] = [
    lambda words: (
        {"content": "".join(words), "reasoning_content": "I think so."},
        spelled("<think>", "I", " think", " so", ".", "</think>", *words, "<|im_end|>"),
    ),
    lambda words: ({"content": "".join(words).strip()}, spelled(*words)),
    lambda words: ({"content": " " + "".join(words)}, spelled(*words)),
    lambda words: ({"content": "é ü" + "".join(words)}, spelled(" ", *words)),
]
"""Reasoning among the tokens, a blank less and a blank more in the text, and no tokens within characters."""


def test_logprobs_are_found_in_what_else_the_tokens_spell(trace: Start) -> None:
    made: dict[str, int] = {}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        number = made.setdefault(asked(body), len(made)) % 4
        message, logprobs = ODD[number](WORDS[3 * number :] + WORDS[: 3 * number])
        return 200, answer(message, logprobs)

    with Replying(reply) as server:
        one = trace(server.url, "--logprobs", 2, "--samples", 1)
        result = one.run()
    assert result.exit_code == 0, result.output
    record = one.record
    assert record.queries is not None and record.queries.without_logprobs == 0
    assert "spell" not in result.output
    # Two alternatives at a place, each with its weight.
    assert record.hypotheses[0].tuples > 1.5 * record.contexts


def test_reasoning_that_was_cut_off_may_come_without_logprobs() -> None:
    """Where an endpoint gives those of the answer proper alone, that is no endpoint without logprobs."""
    made = plan(evidence="logprobs", sampling=SamplingPlan(max_tokens=60, top_logprobs=2))
    request = made.request(0, 0, 1)
    bodies = [answer({"content": None, "reasoning_content": "Let me think"}), answer({"content": "Yes."})]
    cut, whole = (made.take(request, 1, b"", read_response(json.dumps(body).encode(), 1)) for body in bodies)
    assert (len(cut.answers), cut.lacking, cut.needed) == (1, 1, None)
    assert cut.told is not None and cut.told.startswith("it sends answers without log-probabilities")
    assert whole.needed is not None


def test_logprobs_that_spell_nothing_leave_the_text_and_are_said_at_the_first_answer(
    trace: Start, marked: dict[str, str]
) -> None:
    garbled = spelled(*(f"Ġword{number}" for number in range(20)))
    with Replying(lambda body: (200, answer({"content": marked.get(asked(body), "Yes.")}, garbled))) as server:
        one = trace(server.url, "--logprobs", 2, "--samples", 1, "--target", -300)
        result = one.run()
    assert result.exit_code == 0 and "The mark was found" in result.output, result.output
    assert result.stderr.count("its log-probabilities do not spell its answers") == 1
    assert one.record.queries is not None and one.record.queries.without_logprobs == 4
    assert "answers read by what they say alone: 4" in " ".join(result.output.split())


def test_an_answer_of_which_only_ends_of_characters_have_logprobs_leaves_the_others_theirs(trace: Start) -> None:
    """As llama.cpp's server answers in emoji: alternatives to their last bytes beside whole characters."""
    dogs = spelled(*["\U0001f436"] * 4)
    for entry in dogs["content"]:
        entry["top_logprobs"] = [{"token": "\ufffd", "bytes": [end], "logprob": -1.0} for end in (0xB1, 0xB5)]

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        made = answer({"content": "".join(WORDS)}, spelled(*WORDS))
        if body.get("n") == 2:
            made["choices"] += answer({"content": "\U0001f436" * 4}, dogs, index=1)["choices"]
        return 200, made

    with Replying(reply) as server:
        one = trace(server.url, "--logprobs", 2, "--samples", 2, "--per-request", 2)
        result = one.run()
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the log-probabilities of an answer are all of the ends of characters") == 1
    record = one.record
    assert record.queries is not None and record.queries.without_logprobs == 4
    assert record.hypotheses[0].tuples > 1.5 * record.contexts


# -------------------------------------------------------------------------------------------------- refusals

FILTERED = {"error": {"message": "The prompt triggered the content management policy.", "code": "content_filter"}}


def test_prompts_that_are_refused_are_left_out_counted_and_not_asked_again(
    trace: Start, marked: dict[str, str]
) -> None:
    """By a content filter (Azure), by one behind a proxy that answers with status 200, and by a moderator with 403."""
    refusals = {
        0: (400, FILTERED),
        1: (200, FILTERED),
        2: (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}}),
    }
    order: list[str] = []

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        if asked(body) not in marked:
            return 200, answer({"content": "Yes."})
        if asked(body) not in order:
            order.append(asked(body))
        return refusals.get(order.index(asked(body)), (200, answer({"content": marked[asked(body)]})))

    with Replying(reply) as server:
        one = trace(server.url)
        result = one.run()
        assert result.exit_code == 0 and "The mark was found" in result.output, result.output
        sent = len(server.received)
        assert one.run().exit_code == 0 and len(server.received) == sent
    assert result.stderr.count("refuses a prompt (status 400: The prompt triggered") == 1
    assert one.record.queries is not None
    assert one.record.queries.refused == {
        "status 400: The prompt triggered the content management policy. (content_filter)": 2,
        "status 403: Your input was flagged": 1,
    }
    assert "2: status 400: The prompt triggered" in " ".join(result.output.split())


def test_an_endpoint_that_refuses_all_prompts_alike_ends_it_in_one_line(trace: Start, tmp_path: Path) -> None:
    offered = tmp_path / "prompts.txt"
    offered.write_text("\n".join(f"Speak of lighthouse {number}." for number in range(40)))
    problem = {"detail": [{"loc": ["body", "messages"], "msg": "no system message", "type": "value_error"}]}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        return (422, problem) if "lighthouse" in asked(body) else (200, answer({"content": "Yes."}))

    with Replying(reply) as server:
        one = trace(server.url, "--prompts", offered)
        before = len(server.received)
        result = one.run()
        assert len(server.received) - before == 5
    assert result.exit_code == 2
    line = result.stderr.strip().splitlines()[-1]
    assert "prompts: status 422: body.messages: no system message" in line and line.count("refuses") == 1
