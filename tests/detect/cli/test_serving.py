"""`dyetrace serve-check` against real servers on loopback: what it says of each, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.distillation.server import Fault
from detect.cli import working
from detect.cli.main import main
from detect.server.ask import PROMPTS
from detect.student.asking import trouble
from tests.detect.marking_server import MASTER, MarkingServer, spec_of
from tests.detect.student.asking.conftest import tiny_model  # noqa: F401 (the same model that API traces are tried on)
from watermark.keys import TenantKey, write_key_file
from watermark.spec import WatermarkSpec, write_spec

Start = Callable[..., MarkingServer]
LITTLE = ("--count", 6, "--max-tokens", 40, "--concurrency", 2, "--timeout", 60)


@pytest.fixture
def start(tiny_model: tuple[Any, Any]) -> Iterator[Start]:  # noqa: F811
    """Start servers that end with the test; by default one that marks for accounts."""
    with ExitStack() as stack:

        def run(spec: WatermarkSpec | str | None = "accounts", **options: Any) -> MarkingServer:
            made = spec_of(tiny_model[1].backend_tokenizer) if isinstance(spec, str) else spec
            return stack.enter_context(MarkingServer(*tiny_model, made, **options))

        yield run


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line because a busy machine takes long."""
    monkeypatch.setattr(working, "SECONDS_BETWEEN_LINES", 1e6)
    monkeypatch.setattr(trouble, "SECONDS_BETWEEN_LINES", 1e9)
    monkeypatch.setattr(trouble, "SECONDS_BETWEEN_OUTAGES", 1e9)


@pytest.fixture
def owner(tmp_path: Path, smollm2_tokenizer: Any) -> Path:
    write_key_file(tmp_path / "owner.key", MASTER)
    write_spec(tmp_path / "spec.json", spec_of(smollm2_tokenizer))
    write_spec(tmp_path / "plain.json", spec_of(smollm2_tokenizer, global_share=1.0))
    return tmp_path


def check(owner: Path, url: str, *more: object, spec: str = "spec.json", key: str = "owner.key") -> Result:
    words = ["serve-check", url, "--spec", owner / spec, "--key", f"file:{owner / key}", *LITTLE, *more]
    return CliRunner().invoke(main, [str(word) for word in words])


def statuses(result: Result) -> dict[str, str]:
    """Status by the name of each line of the verdict."""
    lines = [line for line in result.stdout.splitlines() if line[:6] in ("PASS  ", "FAIL  ", "OPEN  ", "NOTE  ")]
    return {line[6:].split("  ")[0].strip(): line[:4] for line in lines}


def test_a_server_that_marks_passes_every_check(owner: Path, start: Start) -> None:
    server = start()
    result = check(owner, server.url, "--tenant", "acme", "--control", "zenith")
    assert result.exit_code == 0, result.output
    assert set(statuses(result).values()) == {"PASS"}, result.output
    assert statuses(result).keys() == {
        "global key",
        "account acme",
        "other keys",
        "each answer",
        "temperature 0",
        "n = 3",
        "opting out",
        "seed",
    }
    assert "VERDICT: MARKED, for account acme" in result.stdout
    assert "token ids from the server" in result.stdout
    assert "nothing to choose; sample with a temperature above 0" in result.stdout
    assert all(request.body["vllm_xargs"]["dyetrace_tenant"] == "acme" for request in server.received)
    assert MASTER.reveal_hex() not in result.output


def test_a_server_without_a_hook_fails_with_status_3(owner: Path, start: Start) -> None:
    result = check(owner, start(None).url, "--tenant", "acme")
    assert result.exit_code == 3, result.output
    found = statuses(result)
    assert found["global key"] == found["account acme"] == "FAIL"
    assert found["other keys"] == "PASS"
    assert "VERDICT: NOT MARKED" in result.stdout
    assert "served unmarked" in result.stdout and "there is no hook" in result.stdout


def test_a_proxy_that_loses_the_account_is_found_out(owner: Path, start: Start) -> None:
    url = start(always="zenith").url
    result = check(owner, url, "--tenant", "acme", "--no-special")
    assert result.exit_code == 3
    found = statuses(result)
    assert (found["global key"], found["account acme"], found["other keys"]) == ("PASS", "FAIL", "PASS")
    assert "does the request's dyetrace_tenant reach the hook?" in result.stdout
    assert "VERDICT: MARKED, BUT NOT BY THE KEY OF account acme" in result.stdout
    named = check(owner, url, "--tenant", "acme", "--control", "zenith", "--no-special")
    assert statuses(named)["other keys"] == "FAIL" and "zenith shows a mark" in named.stdout


def test_a_worker_that_has_lost_its_hook_is_found_out(owner: Path, start: Start) -> None:
    result = check(owner, start(lost=2).url, "--tenant", "acme", "--count", 12, "--no-special")
    assert result.exit_code == 3, result.output
    found = statuses(result)
    assert (found["global key"], found["account acme"], found["each answer"]) == ("PASS", "PASS", "FAIL")
    assert "6 of 12 marked by themselves" in result.stdout
    assert "VERDICT: PARTLY UNMARKED" in result.stdout


def test_policies_that_are_the_operators_own_are_told_and_fail_nothing(owner: Path, start: Start) -> None:
    server = start(settings={"on_unmarkable": "pass", "allow_off": True, "default_tenant": "acme"})
    result = check(owner, server.url)
    assert result.exit_code == 0, result.output
    found = statuses(result)
    assert (found["temperature 0"], found["opting out"]) == ("NOTE", "NOTE")
    assert "account acme" not in found  # none was asked for
    assert "on_unmarkable is 'pass'" in result.stdout and "honoured" in result.stdout
    assert "VERDICT: MARKED\n" in result.stdout
    assert server.received[-3].body["vllm_xargs"] == {"dyetrace_mark": "off"}


def test_a_biasing_scheme_marks_greedy_text(owner: Path, start: Start, smollm2_tokenizer: Any) -> None:
    spec = spec_of(smollm2_tokenizer, scheme="green_list", parameters={"delta": 6.0}, global_share=1.0)
    write_spec(owner / "green.json", spec)
    result = check(owner, start(spec).url, spec="green.json")
    assert result.exit_code == 0, result.output
    assert statuses(result)["temperature 0"] in ("PASS", "NOTE") and "served" in result.stdout


def test_without_accounts_and_without_ids_the_text_is_encoded(owner: Path, start: Start, smollm2_dir: Path) -> None:
    spec = spec_of(start().tokenizer.backend_tokenizer, global_share=1.0)
    server = start(spec, strict=True, sends_ids=False)
    options = ["--endpoint", "completions", "--no-special"]
    refused = check(owner, server.url, *options, spec="plain.json")
    assert refused.exit_code == 2 and "--tokenizer" in refused.stderr
    assert refused.stderr.count("\n") == 1
    result = check(owner, server.url, *options, "--tokenizer", smollm2_dir, spec="plain.json")
    assert result.exit_code == 0, result.output
    assert "token ids from the text" in result.stdout
    assert statuses(result) == {"global key": "PASS", "other keys": "PASS", "each answer": "PASS"}
    assert all("vllm_xargs" not in request.body for request in server.received)


def test_an_outside_expert_checks_with_the_accounts_own_key(owner: Path, start: Start) -> None:
    write_key_file(owner / "acme.key", TenantKey.from_master(MASTER, "acme"))
    server = start()
    result = check(owner, server.url, "--no-special", key="acme.key")
    assert result.exit_code == 0, result.output
    assert statuses(result) == {"account acme": "PASS", "other keys": "PASS", "each answer": "PASS"}
    other = check(owner, server.url, "--tenant", "zenith", key="acme.key")
    assert other.exit_code == 2 and "of tenant 'acme' alone" in other.stderr


def test_the_record_is_json_and_holds_no_text(owner: Path, start: Start) -> None:
    result = check(owner, start().url, "--tenant", "acme", "--json", "--no-special")
    record = json.loads(result.stdout)
    assert record["verdict"] == "MARKED, for account acme" and record["endpoint"] == "chat"
    assert [found["key"] for found in record["keys"]] == ["global", "tenant:acme"]
    assert len(record["answers"]) == 6 and len(record["others"]) == 20
    assert sum(a["tuples"] for a in record["answers"]) == sum(k["tuples"] for k in record["keys"])
    assert {field for answer in record["answers"] for field in answer} == {
        "prompt",
        "part",
        "tokens",
        "tuples",
        "log10_pvalue",
    }


def test_a_canary_goes_on_until_the_mark_is_gone(owner: Path, start: Start) -> None:
    server = start()
    good = check(owner, server.url, "--tenant", "acme", "--every", 0, "--rounds", 2)
    assert good.exit_code == 0, good.output
    assert [line.split("round ")[1][0] for line in good.stdout.splitlines()] == ["1", "2"]
    assert all(" PASS round" in line and "global p = 10^-" in line for line in good.stdout.splitlines())
    asked = [request.body["messages"][0]["content"] for request in server.received]
    assert sorted(asked) == sorted(PROMPTS[:12])  # the second round asks on where the first ended
    server.lost = 1  # the hook is gone from every worker
    bad = check(owner, server.url, "--tenant", "acme", "--every", 0, "--rounds", 9)
    assert bad.exit_code == 3 and len(bad.stdout.splitlines()) == 1
    assert " FAIL round 1: NOT MARKED" in bad.stdout


def test_extra_arguments_take_the_place_of_vllms(owner: Path, start: Start) -> None:
    server = start(settings={"default_tenant": "acme"})
    more = ["--argument", "dyetrace_tenant=acme", "--argument", "top_k=-1", "--count", 2]
    result = check(owner, server.url, "--tenant", "acme", *more)
    assert result.exit_code == 0, result.output
    assert all("vllm_xargs" not in r.body and r.body["dyetrace_tenant"] == "acme" for r in server.received)
    assert all(r.body["top_k"] == -1 for r in server.received)
    assert [r.body["dyetrace_mark"] for r in server.received if "dyetrace_mark" in r.body] == ["off"]


def test_the_api_key_is_sent_and_never_shown(owner: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(api_key="the-servers-own-api-key")
    monkeypatch.setenv("SERVER_KEY", "the-servers-own-api-key")
    result = check(owner, server.url, "--tenant", "acme", "--api-key", "env:SERVER_KEY", "--no-special")
    assert result.exit_code == 0, result.output
    monkeypatch.setenv("SERVER_KEY", "another-key-that-is-wrong")
    refused = check(owner, server.url, "--tenant", "acme", "--model", "student", "--api-key", "env:SERVER_KEY")
    assert refused.exit_code == 2 and "--api-key" in refused.stderr
    assert "another-key-that-is-wrong" not in refused.output and "the-servers-own" not in result.output


def test_too_little_to_look_at_cant_tell_and_ends_with_status_4(owner: Path, start: Start) -> None:
    for server in (start(), start(None)):
        result = check(owner, server.url, "--tenant", "acme", "--count", 2, "--max-tokens", 1, "--no-special")
        assert result.exit_code == 4, result.output
        assert "VERDICT: CAN'T TELL\n" in result.stdout and "NOT MARKED" not in result.output
        assert statuses(result)["global key"] == statuses(result)["account acme"] == "OPEN"
        assert "ask for more by --count or --max-tokens" in result.stderr and result.stderr.count("\n") == 1


class Reasoning(MarkingServer):
    """All that is written is reasoning, or the first half, as behind a reasoning parser; no token ids."""

    def serve(self, chat: bool, body: dict[str, Any]) -> dict[str, Any]:
        response = super().serve(chat, body)
        for choice in response["choices"]:
            text = choice["message"]["content"]
            half = text[: len(text) // 2]
            message = {"content": None, "reasoning_content": text}
            if self.served % 2:
                message = {"content": text[len(half) :], "reasoning": half}
            choice["message"] = {"role": "assistant"} | message
        return response


def test_reasoning_is_tested_as_a_text_of_its_own(owner: Path, tiny_model: tuple[Any, Any], smollm2_dir: Path) -> None:  # noqa: F811
    spec = spec_of(tiny_model[1].backend_tokenizer, global_share=1.0)
    with Reasoning(*tiny_model, spec, sends_ids=False) as server:
        result = check(owner, server.url, "--endpoint", "chat", "--tokenizer", smollm2_dir, spec="plain.json")
    assert result.exit_code == 0, result.output
    assert statuses(result)["global key"] == "PASS" and "VERDICT: MARKED" in result.stdout
    assert "9 texts of answers as no account" in result.stdout
    assert "tokens of reasoning in 6 texts" in result.stdout


@pytest.mark.parametrize(
    "detail",
    [{"error": {"message": {"model": ["no such model here"]}}}, [{"loc": ["model"], "msg": "no such model here"}]],
)
def test_a_reason_is_found_in_whatever_body_a_refusal_has(owner: Path, start: Start, detail: Any) -> None:
    refused = Fault("status", 422, body=json.dumps({"detail": detail}).encode())
    result = check(owner, start(faults=lambda _: refused).url, "--tenant", "acme")
    assert result.exit_code == 2 and "status 422" in result.stderr and "no such model here" in result.stderr
    assert result.stderr.count("\n") == 1


EMPTY = Fault("status", 200, body=b'{"choices": [{"index": 0, "message": {"content": ""}}]}')
NOTHING = Fault("status", 200, body=b'{"choices": []}')


@pytest.mark.parametrize("fault", [EMPTY, NOTHING], ids=["empty", "nothing"])
def test_a_server_that_sends_nothing_cant_be_told(owner: Path, start: Start, fault: Fault) -> None:
    result = check(owner, start(faults=lambda _: fault).url, "--tenant", "acme", "--no-special")
    assert result.exit_code == 4, result.output
    assert "VERDICT: CAN'T TELL\n" in result.stdout and "6 of 6 could not be had" in result.stdout


def test_a_canarys_round_that_cant_tell_has_not_failed(owner: Path, start: Start) -> None:
    server = start(faults=[EMPTY] * 6)
    result = check(owner, server.url, "--tenant", "acme", "--every", 0, "--rounds", 2)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert " OPEN round 1: CAN'T TELL" in first and " PASS round 2: MARKED" in second
    assert "1 of 2 rounds could not tell, and count neither as passed nor as failed" in result.stderr
    server.faults = lambda _: EMPTY
    none = check(owner, server.url, "--tenant", "acme", "--every", 0, "--rounds", 2)
    assert none.exit_code == 4 and len(none.stdout.splitlines()) == 2, none.output


def test_what_goes_wrong_is_said_at_once_and_when_it_is_over(owner: Path, start: Start) -> None:
    server = start(faults=[Fault("status", 503), Fault("drop")], api_key="the-servers-own-api-key")
    key = owner / "api.key"
    key.write_text("the-servers-own-api-key")
    key.chmod(0o600)
    result = check(owner, server.url, "--tenant", "acme", "--no-special", "--api-key", f"file:{key}")
    assert result.exit_code == 0, result.output
    first, last = result.stderr.splitlines()
    assert "status 503: injected (server_error); next try in" in first and first.endswith("; Ctrl-C ends the check")
    assert "answers again after 2 failures" in last
    assert "the-servers-own" not in result.output


def test_a_server_that_stays_broken_or_silent_ends_it_with_status_5(owner: Path, start: Start) -> None:
    for fault, seconds, says in (
        (Fault("status", 502), 60, "does not answer (status 502: injected (server_error), 2 times); try again later"),
        (Fault("status", 429, {"Retry-After": "4000"}), 60, "asks to wait 4,000 s; run the check again after that"),
        (Fault("held"), 0.2, "does not answer (no answer within 0.2 s, 2 times); try again later"),
    ):
        url = start(faults=lambda _, fault=fault: fault).url
        result = check(owner, url, "--tenant", "acme", "--attempts", 2, "--timeout", seconds)
        assert result.exit_code == 5 and result.stdout == "", result.output
        assert says in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--timeout", "0"),
        ("--timeout", "-1"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
        ("--timeout", "1e9"),
        ("--attempts", "0"),
        ("--attempts", "101"),
        ("--concurrency", "0"),
        ("--concurrency", "99999"),
    ],
)
@pytest.mark.parametrize("command", ["serve-check", "trace api"])
def test_times_and_counts_out_of_range_are_refused(command: str, option: str, value: str) -> None:
    given = ["http://127.0.0.1:9", "--spec", "s", "--key", "env:NONE", "-o", "o", option, value]
    if command == "serve-check":
        given.remove("-o")
        given.remove("o")
    result = CliRunner().invoke(main, [*command.split(), *given])
    assert result.exit_code == 2 and option in result.stderr, result.output
    assert result.stdout == "" and "Traceback" not in result.output


def test_passing_trouble_is_tried_again(owner: Path, start: Start) -> None:
    server = start(faults=[Fault("status", 503), Fault("drop"), None, Fault("status", 429, {"Retry-After": "0"})])
    result = check(owner, server.url, "--tenant", "acme", "--no-special")
    assert result.exit_code == 0, result.output
    assert len(server.received) == 9


def test_what_cannot_be_asked_is_one_line_and_a_status(owner: Path, start: Start) -> None:
    server = start(settings={"tenants": ["zenith"]})
    dead = start()
    dead.close()
    spec: dict[str, str] = {}
    plain = {"spec": "plain.json"}
    for url, more, files, says in (
        (dead.url, [], spec, "cannot reach 127.0.0.1:"),
        (dead.url, ["--model", "student"], spec, "cannot reach 127.0.0.1:"),
        (server.url, ["--tenant", "acme"], spec, "account 'acme' is not known to this server"),
        (server.url, [], spec, "the request names no account"),
        (server.url, ["--model", "other"], spec, "the model 'other' does not exist"),
        (server.url, ["--tenant", "acme"], plain, "the spec has no accounts"),
        (server.url, ["--temperature", 0], spec, "temperature must be above 0"),
        (server.url, ["--alpha", 0], spec, "alpha must lie in"),
        (server.url, ["--rounds", 2], spec, "--rounds goes with --every"),
        (server.url, ["--argument", "x"], spec, "must have the form NAME=VALUE"),
        (server.url, ["--prompts", owner / "none"], spec, "cannot read prompts"),
        (server.url, ["--tenant", "a", "--control", "a"], spec, "can't be both"),
        ("ftp://nowhere", [], spec, "must begin with http"),
    ):
        result = check(owner, url, *more, **files)
        assert result.exit_code == (5 if url == dead.url else 2), result.output
        assert result.stderr.count(says) == 1 and result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""


FLAGGED = Fault("status", 403, body=b'{"error": {"code": 403, "message": "Your input was flagged"}}')
FILTERED = Fault("status", 400, body=b'{"error": {"code": "content_filter", "message": "content management policy"}}')
"""Refusals of a prompt for its words: OpenRouter's and Azure's."""


@pytest.mark.parametrize("refusal", [FILTERED, FLAGGED], ids=["400", "403"])
def test_prompts_that_a_content_filter_refuses_are_left_out_wherever_they_stand(
    owner: Path, start: Start, refusal: Fault
) -> None:
    """The first two prompts and a later one: those of the special requests are others, too."""
    server = start(faults=lambda body: refusal if any(PROMPTS[n] in str(body) for n in (0, 1, 4)) else None)
    result = check(owner, server.url, "--tenant", "acme", "--count", 9)
    assert result.exit_code == 0, result.output
    found = statuses(result)
    assert found["account acme"] == found["global key"] == found["temperature 0"] == "PASS"
    assert found["answers"] == "NOTE" and "3 of 9 could not be had (status 40" in " ".join(result.stdout.split())
    assert result.stderr.count("refuses a prompt (status 40") == 1


def test_a_content_filter_that_refuses_all_prompts_ends_the_check_in_one_line(owner: Path, start: Start) -> None:
    server = start(faults=lambda _: FILTERED)
    result = check(owner, server.url, "--tenant", "acme")
    assert result.exit_code == 2 and "refuses all 6 prompts: status 400: content management policy" in result.stderr
