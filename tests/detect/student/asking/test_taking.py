"""Plans for endpoints that refuse settings, by the command line: what they take is found, on record, and asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from detect.cli.main import main
from detect.student.asking.plan import load_plan, request_body
from tests.detect.student.asking import strict
from watermark.keys import SecretKey, write_key_file
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

KEY = SecretKey(b"a key that everybody knows......")
SECRET = "sk-0123456789abcdefghijklmnop"
AZURE = "/openai/deployments/gpt"
VERSION = "?api-version=2024-10-21"


def run(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert SECRET not in result.output and "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key, spec, prompts, the endpoint's API key and a tokenizer of bytes, which is soon loaded."""
    folder = tmp_path_factory.mktemp("owner")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer: Any = Tokenizer(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=KEY.fingerprint,
    )
    write_key_file(folder / "owner.key", KEY)
    write_spec(folder / "spec.json", spec)
    (folder / "prompts.txt").write_text("\n".join(f"Tell me about lighthouse {number}." for number in range(4)))
    (folder / "api.key").write_text(SECRET)
    (folder / "api.key").chmod(0o600)
    return folder


def keys(owner: Path) -> list[object]:
    return ["--spec", owner / "spec.json", "--key", f"file:{owner / 'owner.key'}"]


def reading(owner: Path) -> list[object]:
    return ["--tokenizer", owner / "tokenizer.json"]


def planning(owner: Path, url: str, plan: Path, *more: object) -> list[object]:
    fixed = ["--model", "m", "--prompts", owner / "prompts.txt", "--samples", 1, "--max-tokens", 20, "--decoys", 3]
    return ["trace", "plan", url, *keys(owner), *fixed, *more, "-o", plan]


def asking(owner: Path, plan: Path, *more: object) -> list[object]:
    folder = plan.with_name("out")
    return ["trace", "api", plan, *keys(owner), *reading(owner), "--no-pdf", *more, "-o", folder]


def record_of(plan: Path) -> Any:
    return json.loads(plan.with_name("out").joinpath("report.json").read_text())


@pytest.mark.parametrize(
    ("judge", "sent", "refused"),
    [
        (strict.takes_all, {"temperature", "top_p", "max_tokens"}, 0),
        (strict.reasoning_model, {"temperature", "max_completion_tokens"}, 2),
        (strict.claude, {"temperature", "max_tokens"}, 1),
        (strict.claude_of_late, {"max_tokens"}, 2),
        (strict.tgi, {"temperature", "max_tokens"}, 1),
        (lambda body: strict.tgi(body, 200), {"temperature", "max_tokens"}, 1),
        (strict.knows_only("temperature", "max_completion_tokens"), {"temperature", "max_completion_tokens"}, 2),
        (strict.knows_only(), set(), 4),
        (strict.without_words, {"top_p", "max_tokens"}, 4),
        (strict.names_one_for_both, {"max_tokens"}, 2),
    ],
    ids=[
        *("all", "reasoning", "claude", "later claude", "tgi", "tgi with 200", "strict", "bare", "without words"),
        "one name for two",
    ],
)
def test_what_an_endpoint_refuses_is_left_out_by_the_plan_and_on_record(
    owner: Path, tmp_path: Path, judge: strict.Judge, sent: set[str], refused: int
) -> None:
    plan = tmp_path / "plan.json"
    with strict.strict(judge) as server:
        made = run(*planning(owner, server.url, plan))
    assert made.exit_code == 0, made.output
    fixed, tried = load_plan(plan), server.received
    assert set(json.loads(request_body(fixed, 0, 0, 1))) - {"model", "messages"} == sent
    assert judge(json.loads(request_body(fixed, 0, 0, 1))) is None
    assert len(tried) == refused + 1  # a refusal costs nothing, and one token is asked for
    limits = [one.body.get("max_tokens", one.body.get("max_completion_tokens")) for one in tried]
    assert limits[:-1] == [1] * refused and limits[-1] in (1, None)
    assert {one.body["messages"][-1]["content"] for one in tried} == {"Say yes."}  # no prompt was shown
    assert sum("status" in line for line in fixed.probed) >= refused
    assert ("does not take all that was to be sent" in " ".join(made.stderr.split())) == bool(refused)


@pytest.mark.parametrize("body", ["data: {}", [1], {"choices": []}, {"output": "yes"}], ids=str)
def test_answers_of_another_form_are_refused_before_a_plan_is_written(owner: Path, tmp_path: Path, body: Any) -> None:
    with strict.strict(lambda _: (200, body)) as server:
        made = run(*planning(owner, server.url, tmp_path / "plan.json"))
    assert made.exit_code == 2 and made.stderr.count("\n") <= 2, made.output
    assert "what is no answer of such an endpoint" in made.stderr and not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("judge", [strict.reasoning_model, strict.claude_of_late], ids=["reasoning", "later claude"])
def test_a_report_says_which_sampling_was_asked_for(owner: Path, tmp_path: Path, judge: strict.Judge) -> None:
    plan = tmp_path / "plan.json"
    with strict.strict(judge) as server:
        assert run(*planning(owner, server.url, plan)).exit_code == 0
        before = len(server.received)
        asked = run(*asking(owner, plan))
        assert asked.exit_code == 0, asked.output
    assert len(server.received) == before + 4  # nothing was refused any more
    said = record_of(plan)["queries"]["sampling"]
    page = (tmp_path / "out" / "report.html").read_text()
    if judge is strict.claude_of_late:
        assert said == "the server's own temperature, the server's own top-p, at most 20 tokens"
        assert "takes no temperature" in page and "takes no temperature" in " ".join(asked.stdout.split())
    else:
        assert said == "temperature 1, the server's own top-p, at most 20 tokens"
        assert "takes no temperature" not in page and "Sampling asked for" in page
    checked = run("report", "verify", tmp_path / "out" / "report.json")
    assert checked.exit_code == 0, checked.output


def test_what_is_left_out_by_hand_is_not_tried(owner: Path, tmp_path: Path) -> None:
    own = ["--leave-out", "temperature", "--leave-out", "top_p", "--limit-field", "max_completion_tokens"]
    with strict.strict(strict.reasoning_model) as server:
        assert run(*planning(owner, server.url, tmp_path / "a.json", *own)).exit_code == 0
        assert [set(one.body) for one in server.received] == [{"model", "messages", "max_completion_tokens"}]
        assert (
            run(*planning(owner, server.url, tmp_path / "b.json", "--leave-out", "max_tokens", "--no-probe")).exit_code
            == 0
        )
        assert len(server.received) == 1
    assert json.loads((tmp_path / "a.json").read_text())["sampling"]["limit_field"] == "max_completion_tokens"
    bare = json.loads((tmp_path / "b.json").read_text())
    assert bare["sampling"]["limit_field"] is None and "probed" not in bare
    for more, said in (
        (["--leave-out", "temperature", "--temperature", 1], "--leave-out temperature sends none"),
        (["--leave-out", "max_tokens", "--limit-field", "max_tokens"], "sends no limit"),
        (["--no-probe", "--timeout", 3], "asks the endpoint nothing"),
    ):
        refused = run(*planning(owner, server.url, tmp_path / "c.json", *more))
        assert refused.exit_code == 2 and said in refused.stderr


def test_what_the_plan_can_not_do_without_is_refused_before_it_is_written(owner: Path, tmp_path: Path) -> None:
    with strict.strict(strict.reasoning_model) as server:
        refused = run(*planning(owner, server.url, tmp_path / "plan.json", "--logprobs", 5))
        elsewhere = run(*planning(owner, f"{server.url}/elsewhere", tmp_path / "plan.json"))
    assert refused.exit_code == 2 and "'logprobs' is not supported" in refused.stderr
    assert elsewhere.exit_code == 2 and "Resource not found" in elsewhere.stderr
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_is_made_where_nobody_answers_and_no_key_was_given(owner: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    made = run(*planning(owner, nowhere, tmp_path / "plan.json", "--json"))
    assert made.exit_code == 0, made.output
    (line,) = json.loads(made.stdout)["probed"]
    assert line.startswith("what it takes was not found out: cannot reach 127.0.0.1:9")
    given = run(*planning(owner, nowhere, tmp_path / "other.json", "--api-key", f"file:{owner / 'api.key'}"))
    assert given.exit_code != 0 and "cannot reach" in given.stderr and not (tmp_path / "other.json").exists()


def test_several_answers_are_asked_for_as_the_endpoint_takes_them(owner: Path, tmp_path: Path) -> None:
    with strict.strict(strict.knows_only("temperature", "top_p", "max_tokens")) as server:
        made = run(
            *planning(owner, server.url, tmp_path / "plan.json")[:-2],
            "--samples",
            4,
            "--per-request",
            2,
            "-o",
            tmp_path / "plan.json",
        )
    assert made.exit_code == 0, made.output
    assert json.loads((tmp_path / "plan.json").read_text())["per_request"] == 1


@pytest.mark.parametrize("base", [f"{AZURE}{VERSION}", f"{AZURE}/chat/completions{VERSION}"])
def test_azures_query_and_key_header_are_sent_on_every_path(owner: Path, tmp_path: Path, base: str) -> None:
    key = ["--api-key", f"file:{owner / 'api.key'}", "--api-key-header", "api-key"]
    plan, path = tmp_path / "plan.json", f"{AZURE}/chat/completions{VERSION}"
    with strict.strict(path=path, key=("api-key", SECRET)) as server:
        url = server.url + base
        wrong = run(*planning(owner, url, plan, *key[:2]))
        assert wrong.exit_code == 2 and "[redacted]" not in wrong.stderr and "check the API key" in wrong.stderr
        made = run(*planning(owner, url, plan, *key))
        assert made.exit_code == 0, made.output
        asked = run(*asking(owner, plan, *key))
        assert asked.exit_code == 0, asked.output
        check = ["serve-check", url, *keys(owner), *reading(owner), "--model", "m", "--count", 1, *key]
        checked = run(*check)
        assert "What was looked at" in checked.output, checked.output
    assert {one.path for one in server.received} == {path}
    assert all("authorization" not in one.headers for one in server.received[1:])
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_key_that_is_pasted_for_its_headers_name_is_not_shown(owner: Path, tmp_path: Path) -> None:
    source = ["--api-key", f"file:{owner / 'api.key'}"]
    for header, said in (
        (SECRET, "bare name"), (f"api-key: {SECRET}", "bare name"), ("Host", "no place"), ("", "bare name")
    ):  # fmt: skip
        refused = run(*planning(owner, "https://host/v1", tmp_path / "p.json", *source, "--api-key-header", header))
        assert refused.exit_code == 2 and said in refused.stderr
    alone = run(*planning(owner, "https://host/v1", tmp_path / "p.json", "--api-key-header", "api-key"))
    assert alone.exit_code == 2 and "give --api-key as well" in alone.stderr


@pytest.mark.parametrize("answer", [strict.reply, strict.first_counted], ids=["all counted", "first counted"])
def test_a_budget_holds_where_the_first_of_several_answers_is_counted_alone(
    owner: Path, tmp_path: Path, answer: Callable[[strict.Body, int], strict.Body]
) -> None:
    plan, budget = tmp_path / "plan.json", 400
    words = planning(owner, "", plan, "--samples", 6, "--per-request", 3, "--max-total-tokens", budget)
    with strict.strict(answer=answer) as server:
        words[2] = server.url
        assert run(*words).exit_code == 0
        before = len(server.received)
        asked = run(*asking(owner, plan))
        assert asked.exit_code == 0, asked.output
    sent = len(server.received) - before
    spent = sent * (9 + 3 * 20)
    assert (
        budget - 2 * (9 + 3 * 20) - 60 < spent <= budget
    )  # no less either: what is set aside for a prompt is in bytes
    assert record_of(plan)["queries"]["stopped"] == "budget spent"


def test_serve_check_leaves_out_what_a_server_refuses_and_says_so(owner: Path) -> None:
    def judge(body: strict.Body) -> strict.Refusal | None:
        return strict.knows_only("max_completion_tokens", "top_p")(body)

    with strict.strict(judge) as server:
        check = ["serve-check", server.url, *keys(owner), *reading(owner), "--model", "m", "--count", 3]
        found = run(*check, "--json")
        assert found.exit_code in (3, 4), found.output
    lines = {line["name"]: line for line in json.loads(found.stdout)["checks"]}
    assert lines["settings"]["status"] == "NOTE" and "server's own temperature" in lines["settings"]["reason"]
    assert "Extra inputs are not permitted" in lines["settings"]["reason"]
    assert "refuses what was to be sent" in found.stderr
    asked = [set(one.body) for one in server.received if one.body["messages"][-1]["content"]]
    assert asked.count({"model", "messages", "max_completion_tokens"}) >= 3
