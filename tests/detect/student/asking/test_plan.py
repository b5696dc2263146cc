"""Plans: fixed by their hash, strict about what they hold, and never a place for secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.student.asking.address import api_root
from detect.student.asking.budget import Budgets
from detect.student.asking.plan import (
    Message,
    PlannedPrompt,
    SamplingPlan,
    TracePlan,
    endpoint_url,
    load_plan,
    parse_plan,
    plan_sha256,
    prompt_bytes,
    request_body,
    request_key,
    write_plan,
)
from tests.detect.student.asking.planned import plan
from watermark.commitment import commit
from watermark.errors import DyetraceError
from watermark.keys import SecretKey
from watermark.spec import WatermarkSpec


def refusal(**fields: Any) -> str:
    with pytest.raises(DyetraceError) as caught:
        plan(**fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plan_survives_its_file_with_its_hash(tmp_path: Path) -> None:
    made = plan(prompts=3, samples=2, budgets=Budgets(requests=10, tokens=10_000))
    digest = write_plan(tmp_path / "plan.json", made)
    assert load_plan(tmp_path / "plan.json") == made
    assert digest == plan_sha256(made) == plan_sha256(load_plan(tmp_path / "plan.json"))


def test_the_hash_does_not_depend_on_how_numbers_or_files_are_written() -> None:
    whole = plan(sampling=SamplingPlan(temperature=1, max_tokens=4), target_log10_p=-10)
    assert plan_sha256(whole) == plan_sha256(plan(target_log10_p=-10.0))
    text = json.dumps(json.loads(msgspec.json.encode(whole)), indent=7, sort_keys=False)
    assert plan_sha256(parse_plan(text.encode(), "x")) == plan_sha256(whole)


def test_a_plan_of_an_earlier_release_keeps_its_hash_and_asks_the_same() -> None:
    made = plan(prompts=2)
    assert plan_sha256(made) == "207258b29018c3ab4e2708ea2a1cc58d00b21b4d882493765d27d32767ad7b15"
    key = request_key(made, request_body(made, 1, 0, 1), 0)
    assert key == "2263443c599df5e824b52912176b63cf6907957a39531887d7d7798d3363ff96"
    assert plan_sha256(plan(prompts=2, probed=["max_tokens 1: answered"])) != plan_sha256(made)


def test_what_is_null_is_not_sent() -> None:
    bare = plan(samples=2, sampling=SamplingPlan(temperature=None, top_p=None, limit_field=None))
    assert set(json.loads(request_body(bare, 0, 0, 1))) == {"model", "messages"}
    assert bare.asked_for == "the server's own temperature, the server's own top-p, the server's own limit of tokens"
    assert bare.request(0, 0, 1).most_tokens == bare.sampling.max_tokens  # what budgets reckon with
    assert parse_plan(msgspec.json.encode(bare), "x") == bare
    other = plan(sampling=SamplingPlan(limit_field="max_completion_tokens", max_tokens=7))
    assert json.loads(request_body(other, 0, 0, 1))["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.02},
        {"readout": "other"},
        {"target_log10_p": -11.0},
        {"decoy_seed": "x"},
        {"samples": 2},
        {"statistic": {"kappa": 2.0}},
        {"hypotheses": ["tenant:acme"]},
        {"prompts": [PlannedPrompt(prompt="b"), PlannedPrompt(prompt="a")]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_fixes_every_part(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"prompts": [PlannedPrompt(prompt="a"), PlannedPrompt(prompt="b")]}
    assert plan_sha256(plan(**{**base, **change})) != plan_sha256(plan(**base))


def test_unknown_fields_other_versions_and_broken_files_are_refused(tmp_path: Path) -> None:
    good = json.loads(msgspec.json.encode(plan()))
    for change, words in (
        ({"surprise": 1}, "unknown field"),
        ({"version": 3}, "use the release that wrote it"),
        ({"version": 3, "surprise": 1}, "use the release that wrote it"),
        ({"version": 1}, "can make an innocent endpoint look guilty; make a new plan"),
        ({"format": "other"}, "not a plan"),
        ({"alpha": 0.0}, "alpha must lie in (0, 1) (got 0.0)"),
        ({"alpha": 1.0}, "alpha must lie in (0, 1) (got 1.0)"),
        ({"alpha": 2.0}, "alpha must lie in (0, 1) (got 2.0)"),
    ):
        with pytest.raises(DyetraceError) as caught:
            parse_plan(json.dumps(good | change).encode(), "plan x")
        assert words in str(caught.value) and str(caught.value).startswith("plan x")
    for broken in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"prompts": ["\\ud800"]}'):
        with pytest.raises(DyetraceError):
            parse_plan(broken, "plan x")
    with pytest.raises(DyetraceError, match="cannot read plan"):
        load_plan(tmp_path)


def test_a_plan_is_never_overwritten(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", plan())
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(DyetraceError, match="never overwritten"):
        write_plan(tmp_path / "plan.json", plan(alpha=0.5))
    assert (tmp_path / "plan.json").read_bytes() == before


def test_an_address_with_anything_secret_is_refused_without_a_word_of_it() -> None:
    for url in ("https://user:hunter2@host/v1", "https://host/v1?key=hunter2", "https://host/v1#hunter2"):
        assert "hunter2" not in refusal(url=url)
    for url in (
        "",
        "host/v1",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://h:port",
        "http://h/\x1b[2J",
        "http://a b",
    ):
        refusal(url=url)


def test_bad_plans_are_refused_in_one_line() -> None:
    assert "negative" in refusal(target_log10_p=3.0)
    assert "negative" in refusal(target_log10_p=float("-inf"))
    assert "no prompts" in refusal(prompts=[])
    assert "prompt 2 of the plan is empty" in refusal(prompts=[PlannedPrompt(prompt="a"), PlannedPrompt(prompt=" ")])
    same = [PlannedPrompt(prompt="a"), PlannedPrompt(prompt="b"), PlannedPrompt(prompt="a", answer="7")]
    assert "prompts 1 and 3 of the plan are the same" in refusal(prompts=same)
    chat = [PlannedPrompt(prompt=[Message(role="user", content="a")])]
    assert "completions take a string" in refusal(prompts=chat, endpoint="completions")
    assert "Unicode" in refusal(prompts=[PlannedPrompt(prompt="\ud800")])
    assert "temperature above 0" in refusal(samples=2, sampling=SamplingPlan(temperature=0.0))
    assert "per_request" in refusal(samples=2, per_request=3)
    with pytest.raises(DyetraceError, match="'stream'"):
        SamplingPlan(extra={"stream": True})
    with pytest.raises(DyetraceError, match=r"budgets\.tokens"):
        Budgets(tokens=0)


def test_the_commitment_must_be_of_the_plans_spec_and_key() -> None:
    key = SecretKey(bytes(range(32)))
    spec = WatermarkSpec(vocabulary_size=9, tokenizer="t", key_fingerprint=key.fingerprint)
    public, _ = commit(spec, key)
    kept = plan(spec_id=spec.spec_id, key_fingerprint=key.fingerprint, commitment=public)
    assert parse_plan(msgspec.json.encode(kept), "x").commitment == public
    assert "another spec or key" in refusal(commitment=public)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://host/v1", "https://host/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host", "https://host/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/v1/completions/", "https://host/v1"),
        ("https://host/api/openai/v2", "https://host/api/openai/v2"),
    ],
)
def test_the_base_address_is_found_in_what_people_paste(url: str, root: str) -> None:
    assert api_root(url) == root
    assert endpoint_url(plan(url=url)) == root + "/chat/completions"


def test_requests_are_what_servers_expect() -> None:
    chat = plan(samples=8, per_request=4, sampling=SamplingPlan(max_tokens=9, seed=5, extra={"top_k": -1}))
    assert json.loads(request_body(chat, 0, 4, 4)) == {
        "model": "student",
        "messages": [{"role": "user", "content": "Tell me about lighthouse 0."}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 9,
        "n": 4,
        "seed": 9,
        "top_k": -1,
    }
    text = plan(endpoint="completions", evidence="logprobs", sampling=SamplingPlan(top_logprobs=5))
    body = json.loads(request_body(text, 1, 0, 1))
    assert (body["prompt"], body["logprobs"]) == ("Tell me about lighthouse 1.", 5)
    assert "n" not in body and "seed" not in body and "messages" not in body
    dialogue = [Message(role="system", content="Be brief."), Message(role="user", content="Hello")]
    scored = plan(prompts=[PlannedPrompt(prompt=dialogue)], evidence="logprobs")
    body = json.loads(request_body(scored, 0, 0, 1))
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


def test_answers_are_named_by_everything_that_decides_them_and_nothing_else() -> None:
    def key(made: TracePlan, prompt: int = 0, sample: int = 0) -> str:
        return request_key(made, request_body(made, prompt, sample, 1), sample)

    base = plan(samples=2)
    others = [
        key(base, prompt=1),
        key(base, sample=1),
        key(plan(samples=2, model="b")),
        key(plan("http://other/v1", samples=2)),
        key(plan(samples=2, endpoint="completions")),
        key(plan(samples=2, sampling=SamplingPlan(max_tokens=5))),
    ]
    assert len({key(base), *others}) == 7
    assert key(base) == key(plan(samples=9, alpha=0.5, prompts=1)) == key(plan(base.url + "/", samples=2))


def test_prompt_bytes_bound_the_tokens_of_the_prompt() -> None:
    assert prompt_bytes(plan(), 0) == len("Tell me about lighthouse 0.") + 16
    dialogue = [Message(role="user", content="é")]
    assert prompt_bytes(plan(prompts=[PlannedPrompt(prompt=dialogue)]), 0) == 4 + 16 + 2 + 16


def test_budgets_only_ever_tighten() -> None:
    assert Budgets(requests=5).tightened(Budgets(requests=9, tokens=3)) == Budgets(requests=5, tokens=3)
    assert Budgets(requests=5).tightened(None) == Budgets(requests=5)
