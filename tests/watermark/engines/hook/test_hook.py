"""The hook as an adapter drives it, in an engine made by hand: batches, policies, counts, alarms, rotation, logs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.watermark.engines.conformance import Answered, conform, evidence
from tests.watermark.engines.operator import KEY, VOCABULARY, settings_in, spec_of
from watermark.engines.hook.admission import Admitted, Decoding
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.hook import ALARMS, REQUESTS, TOKENS, Hook
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.spec import write_spec

CPU = torch.device("cpu")
SAMPLED = Decoding()


def _hook(folder: Path, spec: dict[str, Any] | None = None, **fields: Any) -> Hook:
    return Hook(settings_in(folder, spec_of(**({"global_share": 0.3} if spec is None else spec)), **fields))


class _Engine:
    """Draws each token from what the hook leaves; ``override`` stands for a defect that draws from the model's own."""

    def __init__(self, hook: Hook, *, override: bool = False) -> None:
        self.hook = hook
        self.override = override
        self._generator = torch.Generator().manual_seed(11)

    def logits(self, rows: int) -> torch.Tensor:
        return torch.randn(rows, VOCABULARY, generator=self._generator) * 2

    def step(self, answers: list[Answer | None], tokens: list[list[int]]) -> None:
        own = self.logits(len(answers))
        marked = self.hook.mark(own.clone(), answers)
        drawn = torch.multinomial((own if self.override else marked).softmax(-1), 1, generator=self._generator)
        for mine, token in zip(tokens, drawn[:, 0].tolist(), strict=True):
            mine.append(token)

    def serve(self, tenant: str | None, length: int, prompt: list[int] | None = None, **asked: Any) -> Answered:
        arguments = asked if tenant is None else {"dyetrace_tenant": tenant, **asked}
        admitted = self.hook.admit(arguments, SAMPLED)
        tokens: list[int] = []
        answer = self.hook.begin(admitted, prompt or [1, 2, 3], tokens)
        for _ in range(length):
            self.step([answer], [tokens])
        if answer is not None:
            self.hook.finish(answer)
        return Answered(tenant, prompt or [1, 2, 3], tokens, answer is not None)


def test_answers_of_all_kinds_in_one_batch_conform(tmp_path: Path) -> None:
    hook = _hook(tmp_path, tenants=["acme", "beta"], allow_off=True)
    hook.start(CPU, VOCABULARY)
    engine = _Engine(hook)
    tenants = ["acme", "beta", "acme", "beta", "acme"]
    prompts = [[1], [1, 2], [1, 2, 3], [], [9] * 50]
    tokens: list[list[int]] = [[] for _ in tenants]
    answers = [
        hook.begin(
            hook.admit({"dyetrace_tenant": tenant} | ({"dyetrace_mark": "off"} if n == 4 else {}), SAMPLED), p, t
        )
        for n, (tenant, p, t) in enumerate(zip(tenants, prompts, tokens, strict=True))
    ]
    for step in range(100):
        present = [row for row in range(5) if step < 60 + 10 * row]
        present = present[::-1] if step % 3 else present  # engines move rows
        engine.step([answers[row] for row in present], [tokens[row] for row in present])
    for answer in answers:
        if answer is not None:
            hook.finish(answer)
    served = [Answered(n, p, t, a is not None) for n, p, t, a in zip(tenants, prompts, tokens, answers, strict=True)]
    conform(hook.epoch.spec, KEY, served, log10_p=-10)
    counted = hook.counters.get(TOKENS, marked="yes", why="")
    counted += hook.counters.get(TOKENS, marked="no", why="repeated context")
    assert counted == sum(len(answer.tokens) for answer in served if answer.marked)
    assert hook.counters.get(REQUESTS, result="opted out") == 1


def test_a_wrong_model_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="wrong model"):
        _hook(tmp_path).start(CPU, VOCABULARY - 1)
    _hook(tmp_path).start(CPU, VOCABULARY + 12)  # padded to a round number


def test_every_request_ends_up_in_one_count(tmp_path: Path) -> None:
    hook = _hook(tmp_path, tenants=["acme"], allow_off=True, on_unmarkable="pass")
    for arguments, decoding in [
        ({"dyetrace_tenant": "acme"}, SAMPLED),
        ({"dyetrace_tenant": "acme", "dyetrace_mark": "off"}, SAMPLED),
        ({"dyetrace_tenant": "acme"}, Decoding(greedy=True)),
        ({}, SAMPLED),
    ]:
        hook.begin(hook.admit(arguments, decoding), [1], [])
    with pytest.raises(DyetraceError):
        hook.admit({"dyetrace_tenant": "nobody"}, SAMPLED)
    for result in ("marked", "opted out", "greedy", "no tenant", "refused"):
        assert hook.counters.get(REQUESTS, result=result) == 1, result


def test_what_can_no_longer_be_refused_is_served_unmarked_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = _hook(tmp_path, tenants=["acme"])
    admitted = hook.readmit({"dyetrace_tenant": "gone"}, SAMPLED)
    assert hook.begin(admitted, [1], []) is None
    assert hook.counters.get(REQUESTS, result="not admitted") == 1
    assert any("not known" in record.message for record in caplog.records if record.levelno == logging.ERROR)


def test_the_clients_seed_fixes_the_sub_key(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    for seed in (0, 6, -1, 2**40 + 3):
        answer = hook.begin(Admitted("acme"), [1], [], seed)
        assert answer is not None
        assert answer.subkey == seed % 4
    chosen = hook.begin(Admitted("acme", 2), [1], [], 7)
    assert chosen is not None
    assert chosen.subkey == 2


def test_a_preempted_answer_comes_back_under_its_sub_key_and_its_tokens_count_once(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    engine = _Engine(hook)
    for length in (1, 5, 40):
        tokens: list[int] = []
        answer = hook.begin(Admitted("acme"), [1, 2, length], tokens)
        assert answer is not None
        for _ in range(length):
            engine.step([answer], [tokens])
        hook.finish(answer)
        again = hook.begin(Admitted("acme"), [1, 2, length], list(tokens))
        assert again is not None
        assert again.subkey == answer.subkey
        hook.finish(again)
    counted = hook.counters.get(TOKENS, marked="yes", why="") + hook.counters.get(
        TOKENS, marked="no", why="repeated context"
    )
    assert counted == 46
    assert hook.counters.get(REQUESTS, result="marked") == 3


def test_tokens_that_are_hidden_from_the_first_on_stop_it_too(tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    answer = hook.begin(Admitted("acme"), [1, 2], [-1])
    with pytest.raises(DyetraceError, match="asynchronous scheduling"):
        hook.mark(torch.zeros(1, VOCABULARY), [answer])


def test_tokens_that_the_engine_hides_stop_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = _hook(tmp_path)
    tokens: list[int] = []
    answer = hook.begin(Admitted("acme"), [1, 2], tokens)
    tokens.append(-1)
    with pytest.raises(DyetraceError, match="asynchronous scheduling"):
        hook.mark(torch.zeros(1, VOCABULARY), [answer])
    assert any('"stopped"' in record.message for record in caplog.records)


def test_or_are_served_unmarked_and_counted_where_the_operator_says_so(tmp_path: Path) -> None:
    hook = _hook(tmp_path, on_unmarkable="pass")
    shown = hook.begin(Admitted("acme"), [1, 2], [])
    hidden = hook.begin(Admitted("acme"), [1, 2, 3], [5])
    assert hidden is not None
    hidden.tokens = [5, -1]
    logits = torch.randn(2, VOCABULARY)
    for _ in range(20):
        marked = hook.mark(logits.clone(), [shown, hidden])
    assert not torch.equal(marked[0], logits[0])
    assert torch.equal(marked[1], logits[1])
    assert hook.counters.get(TOKENS, marked="no", why="tokens hidden") == 20
    hook.finish(hidden)
    hook.close()


def test_an_engine_that_overrides_the_choice_raises_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = _hook(tmp_path)
    _Engine(hook, override=True).serve("acme", 600)
    hook.close()
    assert hook.counters.get(ALARMS) == 1
    assert any('"mark vanished"' in record.message and '"acme"' in record.message for record in caplog.records)


def test_or_stops_where_the_operator_says_so(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="vanished from the text of account 'acme'"):
        _Engine(_hook(tmp_path, alarm="stop"), override=True).serve("acme", 600)


def test_marked_text_raises_no_alarm(tmp_path: Path) -> None:
    hook = _hook(tmp_path, alarm="stop")
    _Engine(hook).serve("acme", 600)
    hook.close()
    assert hook.counters.get(ALARMS) == 0


def test_a_share_of_positions_may_be_left_to_the_engine(tmp_path: Path) -> None:
    hook = _hook(tmp_path, fresh_share=0.5)
    answer = hook.begin(Admitted("acme"), [1, 2], [])
    logits = torch.randn(1, VOCABULARY)
    left = sum(torch.equal(hook.mark(logits.clone(), [answer]), logits) for _ in range(400))
    assert 130 < left < 270


def test_keys_rotate_without_a_restart_and_answers_end_in_the_epoch_they_began_in(tmp_path: Path) -> None:
    hook = _hook(tmp_path, reload_seconds=0.0)
    engine = _Engine(hook)
    tokens: list[list[int]] = [[], [], []]
    answers = [hook.begin(Admitted("acme"), [1, 2, 3], tokens[0]), None, None]
    for _ in range(40):
        engine.step(answers[:1], tokens[:1])
    old = hook.epoch.spec
    new = spec_of(global_share=0.3, epoch=1)
    write_spec(tmp_path / "spec.json", new)
    os.utime(tmp_path / "spec.json", ns=(10**18, 10**18))
    answers[1] = hook.begin(Admitted("acme"), [1, 2, 3], tokens[1])
    for _ in range(40):
        engine.step(answers, tokens)  # two epochs and an unmarked row in one batch
    ring = {0: KeyRing.from_master(KEY, 0, ("acme",)), 1: KeyRing.from_master(KEY, 1, ("acme",))}
    first, second = (Answered("acme", [1, 2, 3], mine) for mine in tokens[:2])
    assert evidence(old, ring[0], "acme", [first]) < -10
    assert evidence(new, ring[1], "acme", [second]) < -5
    assert evidence(new, ring[1], "acme", [first]) > -4


def test_a_spec_that_differs_in_more_than_its_keys_needs_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = _hook(tmp_path, reload_seconds=0.0)
    write_spec(tmp_path / "spec.json", spec_of(global_share=0.3, epoch=1, context_width=3))
    os.utime(tmp_path / "spec.json", ns=(10**18, 10**18))
    assert hook.epoch.spec.epoch == 0
    assert any("restart the server" in record.message for record in caplog.records)


def test_a_broken_spec_is_logged_once_and_the_old_one_serves_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = _hook(tmp_path, reload_seconds=0.0)
    (tmp_path / "spec.json").write_text("{")
    served = _Engine(hook).serve("acme", 60)
    assert len([record for record in caplog.records if "spec not reloaded" in record.message]) == 1
    assert evidence(hook.epoch.spec, KeyRing.from_master(KEY, 0, ("acme",)), "acme", [served]) < -10


def test_log_lines_are_json_and_hold_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dyetrace")
    hook = _hook(tmp_path, allow_off=True)
    hook.start(CPU, VOCABULARY)
    _Engine(hook).serve("acme", 3, dyetrace_mark="off")
    lines = [record.getMessage() for record in caplog.records if record.name == "dyetrace"]
    events = [json.loads(line.removeprefix("dyetrace "))["event"] for line in lines]
    assert {"started", "unmarked request"} <= set(events)
    everything = "".join(lines) + repr(vars(hook)) + hook.counters.text()
    assert KEY.reveal_hex() not in everything
    assert str(tmp_path / "key") not in everything


def test_counters_are_written_for_a_collector(tmp_path: Path) -> None:
    hook = _hook(tmp_path, metrics=str(tmp_path / "dyetrace.prom"))
    hook.start(CPU, VOCABULARY)
    _Engine(hook).serve("acme", 20)
    hook.close()
    text = (tmp_path / "dyetrace.prom").read_text()
    assert 'dyetrace_requests_total{result="marked"} 1\n' in text
    assert "dyetrace_accounts 1\n" in text
