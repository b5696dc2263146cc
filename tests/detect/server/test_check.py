"""The evidence of a server's answers and the verdict on it, without a server."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from detect.records.server_check import AnswerFound, Check, KeyFound, ServeCheck
from detect.report.paper.terminal import print_story
from detect.report.server.story import one_line, story
from detect.server.answers import Reader, Refused, Served, Special
from detect.server.ask import Manner, parse_argument, request_arguments, with_opt_out
from detect.server.check import conclude, judge, verdict
from detect.server.evidence import (
    Findings,
    Keys,
    examine,
    fisher_log10,
    fresh_tuples,
    make_keys,
    weigh,
)
from detect.server.special import judge_special
from detect.student.asking.answers import Choice, read_response
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
VOCABULARY = 5_000


def spec(**fields: Any) -> WatermarkSpec:
    defaults = {"vocabulary_size": VOCABULARY, "tokenizer": "t", "key_fingerprint": MASTER.fingerprint}
    return WatermarkSpec(**{**defaults, "global_share": 0.5, **fields})


def served(ids: list[int] | np.ndarray, prompt: int = 0, lead: list[int] | None = None) -> Served:
    before = None if lead is None else np.array(lead, dtype=np.uint32)
    return Served(prompt, np.array(ids, dtype=np.uint32), before, exact=True)


# ------------------------------------------------------------------------------------------------ statistics


@given(st.lists(st.floats(-9, 0), max_size=30), st.randoms())
def test_fishers_method_is_scipys_and_knows_no_order(log10_ps: list[float], order: Any) -> None:
    found = fisher_log10(log10_ps)
    if log10_ps:
        statistic = -2 * np.log(10) * float(np.sum(log10_ps))
        assert found == pytest.approx(stats.chi2.logsf(statistic, 2 * len(log10_ps)) / np.log(10), rel=1e-6, abs=1e-9)
    shuffled = order.sample(log10_ps, len(log10_ps))
    assert fisher_log10(shuffled) == pytest.approx(found, rel=1e-12, abs=1e-12)


def test_no_p_values_are_no_evidence_and_huge_evidence_does_not_underflow() -> None:
    assert fisher_log10([]) == 0.0
    assert -40_001 < fisher_log10([-2000.0] * 20) < -39_000


Answers = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=6)


@given(Answers, st.integers(0, 3), st.booleans())
def test_a_tuple_counts_once_over_all_answers_for_the_first_that_has_it(
    answers: list[list[int]], width: int, knows_prompts: bool
) -> None:
    lead = [1, 2] if knows_prompts else None
    made = spec(scheme="green_list", context_width=width, global_share=1.0)
    found = fresh_tuples(made, [served(ids, lead=lead) for ids in answers])
    seen: set[tuple[int, ...]] = set()
    missing = 0xFFFFFFFF
    for own, ids in zip(found, answers, strict=True):
        whole = [missing] * width + (lead or []) + ids
        first = width + (len(lead) if lead else width)
        wanted = {tuple(whole[at - width : at + 1]) for at in range(first, len(whole))} - seen
        got = [(*context, token) for context, token in zip(own.contexts.tolist(), own.tokens.tolist(), strict=True)]
        assert len(got) == len(set(got)) and set(got) == wanted
        seen |= wanted


@pytest.mark.parametrize("scheme", ["gumbel", "green_list"])
def test_keys_that_marked_nothing_have_uniform_p_values_even_where_answers_repeat_each_other(scheme: str) -> None:
    """Five answers that begin alike, of which two are the same, under 400 keys."""
    random = np.random.default_rng(5)
    begin = random.integers(VOCABULARY, size=30)
    texts = [np.concatenate([begin, random.integers(VOCABULARY, size=30)]) for _ in range(4)]
    answers = [served(ids, lead=[1, 2, 3]) for ids in [*texts, texts[0]]]
    log10_ps = []
    for number in range(400):
        master = MASTER.derive("decoy", number)
        made = spec(scheme=scheme, key_fingerprint=master.fingerprint)
        ring = KeyRing.from_master(master, 0, ("acme",))
        log10_ps += [found.log10_pvalue for found in weigh(made, ring, fresh_tuples(made, answers)).by_key()]
    ps = 10 ** np.array(log10_ps)
    assert len(ps) == 800
    # Never too small; for the gumbel scheme, whose statistic is continuous, uniform.
    assert stats.kstest(ps, "uniform", alternative="greater").pvalue > 1e-3
    if scheme == "gumbel":
        assert stats.kstest(ps, "uniform").pvalue > 1e-3


def marked(made: WatermarkSpec, tenant: str, count: int, length: int) -> list[Served]:
    """Answers of a model that knows 32 tokens, marked by the schemes' own transform."""
    torch = pytest.importorskip("torch")
    from watermark.rowkeys import RowKeys
    from watermark.schemes.marking import mark_rows

    ring = KeyRing.from_master(MASTER, made.epoch, (tenant,))
    keys = RowKeys.of(made, ring, [tenant] * count, [row % made.subkeys for row in range(count)], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(made.vocabulary_size, (count, made.context_width), generator=generator)
    for _ in range(length):
        logits = torch.full((count, made.vocabulary_size), -torch.inf)
        logits.scatter_(1, torch.randint(made.vocabulary_size, (count, 32), generator=generator), 0.0)
        chances = mark_rows(made.build_scheme(), logits, *keys.at(ids[:, -made.context_width :])).softmax(-1)
        ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], dim=1)
    width = made.context_width
    return [served(row[width:], number, row[:width]) for number, row in enumerate(ids.tolist())]


def test_an_accounts_mark_is_found_for_it_and_for_no_other() -> None:
    made = spec()
    answers = marked(made, "acme", 6, 60)
    found = examine(made, make_keys(MASTER, made, "acme", ["zenith"]), answers)
    assert [key.key for key in found.keys] == ["global", "tenant:acme"]
    assert all(key.log10_pvalue < -20 for key in found.keys)
    assert sum(key.tuples for key in found.keys) == sum(answer.tuples for answer in found.answers) == 360
    assert all(answer.log10_pvalue < -3 for answer in found.answers)
    assert len(found.others) == 21 and min(found.others.values()) > -4
    assert {check.status for check in judge(found, 1e-6)} == {"PASS"}
    wrong = examine(made, make_keys(MASTER, made, "zenith", ["acme"]), answers)
    assert [check.status for check in judge(wrong, 1e-6)][:3] == ["PASS", "FAIL", "FAIL"]


# --------------------------------------------------------------------------------------------------- verdict


def findings(ps: list[float], tuples: int = 100, key: float = -50.0) -> Findings:
    answers = [AnswerFound(prompt=i, tokens=tuples, tuples=tuples, log10_pvalue=p) for i, p in enumerate(ps)]
    keys = [KeyFound(key="global", tuples=tuples * len(ps), log10_pvalue=key)]
    return Findings(keys, answers, {"decoy 1": -0.3, "decoy 2": -0.1})


@pytest.mark.parametrize(
    ("ps", "status", "says"),
    [
        ([-20.0] * 16, "PASS", "16 of 16 marked"),
        ([-20.0] * 15 + [-0.2], "NOTE", "1 look unmarked"),  # one may have had little to choose
        ([-20.0] * 14 + [-0.2] * 2, "FAIL", "about 86% of answers marked"),
        ([-20.0] * 95 + [-0.2] * 5, "NOTE", "5 look unmarked"),
        ([-20.0] * 15 + [-2.0], "PASS", "15 of 16 marked"),  # weak, and no sign of an unmarked one
        ([-1.0] * 16, "NOTE", "0 of 16 marked"),
        ([-4.0] * 8 + [-0.2] * 8, "NOTE", "too short to tell"),  # text this weak may well show nothing
    ],
)
def test_unmarked_answers_among_marked_ones_are_told_from_weak_ones(ps: list[float], status: str, says: str) -> None:
    check = judge(findings(ps), 1e-6)[-1]
    assert check.name == "each answer" and check.status == status and says in check.reason


def test_a_key_needs_its_level_and_enough_tuples() -> None:
    (key, *_) = judge(findings([-0.5] * 4, key=-5.9), 1e-6)
    assert key.status == "OPEN" and "10^-6 is needed; a weak mark, or chance" in key.reason
    (key, *_) = judge(findings([-0.5] * 4, key=-0.4), 1e-6)
    assert key.status == "FAIL" and "10^-6 is needed; there is no mark, or there was next to nothing" in key.reason
    (key, *_) = judge(findings([-0.5] * 4, key=-5.9), 1e-5)
    assert key.status == "PASS"
    (key, *_) = judge(findings([-0.5] * 4, tuples=10, key=-1.0), 1e-6)
    assert key.status == "OPEN" and "too few tuples to tell" in key.reason
    (key, *_) = judge(findings([-0.1] * 40, tuples=5, key=-0.1), 1e-6)  # 200 of them, but 5 an answer tell nothing
    assert key.status == "OPEN" and "too few tuples to tell" in key.reason


def test_the_verdict_names_the_worst() -> None:
    good = findings([-20.0] * 16)
    assert verdict(judge(good, 1e-6), good.keys, None) == "MARKED"
    assert verdict(judge(good, 1e-6), good.keys, "acme") == "MARKED, for account acme"
    part = findings([-20.0] * 8 + [-0.1] * 8)
    assert verdict(judge(part, 1e-6), part.keys, None) == "PARTLY UNMARKED"
    none = findings([-0.1] * 8, key=-0.3)
    assert verdict(judge(none, 1e-6), none.keys, None) == "NOT MARKED"
    odd = Findings(good.keys, good.answers, {"decoy 1": -30.0, "decoy 2": -0.1})
    assert verdict(judge(odd, 1e-6), odd.keys, None) == "MARKED BY A KEY THAT SHOULD SHOW NOTHING"


# --------------------------------------------------------------------------------------------------- special


def special_lines(made: WatermarkSpec, special: Special) -> list[tuple[str, str, str]]:
    keys = make_keys(MASTER, made, "acme")
    return [(check.name, check.status, check.reason) for check in judge_special(made, keys, special)]


def long(seed: int) -> Served:
    return served(np.random.default_rng(seed).integers(VOCABULARY, size=40))


@pytest.mark.parametrize(
    ("special", "status", "says"),
    [
        (Special(greedy=Refused(400, "no")), "PASS", "nothing to choose"),
        (Special(greedy=[long(0)]), "NOTE", "served unmarked"),
        (Special(greedy=[]), "NOTE", "an empty answer"),
        (Special(opted_out=[]), "NOTE", "an empty answer"),
        (Special(samples=[long(0), long(1), long(2)]), "PASS", "all different"),
        (Special(samples=[long(0), long(1), long(0)]), "FAIL", "repeat each other"),
        (Special(samples=[served([1, 2])] * 3), "NOTE", "short"),
        (Special(samples=[long(0)]), "NOTE", "does not know n"),
        (Special(samples=Refused(400, "no")), "NOTE", "refused"),
        (Special(opted_out=Refused(400, "no")), "PASS", "refused"),
        (Special(opted_out=[long(0)]), "NOTE", "honoured"),
        (Special(seeded=([long(0)], [long(0)])), "PASS", "the same answer"),
        (Special(seeded=([served([1, 2, 3])], [served([1, 2, 4, 5])])), "NOTE", "after 2 tokens"),
        (Special(seeded=([long(0)], Refused(400, "no"))), "NOTE", "refused"),
        (Special(seeded=([], [long(0)])), "NOTE", "empty"),
    ],
)
def test_what_a_special_request_came_to(special: Special, status: str, says: str) -> None:
    [(_, found, reason)] = special_lines(spec(), special)
    assert found == status and says in reason


def test_marked_answers_to_special_requests_are_recognised() -> None:
    made = spec()
    (answer, *_) = marked(made, "acme", 4, 60)
    [(_, status, reason)] = special_lines(made, Special(opted_out=[answer]))
    assert status == "PASS" and "ignored" in reason
    [(_, status, reason)] = special_lines(spec(subkeys=2), Special(samples=Refused(400, "too many")))
    assert status == "PASS" and "fewer sub-keys" in reason
    [(_, status, reason)] = special_lines(spec(scheme="green_list"), Special(greedy=Refused(400, "no")))
    assert status == "NOTE" and "could mark it" in reason


# -------------------------------------------------------------------------------------------------- requests


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.text(max_size=5), max_size=3))
def test_the_account_is_sent_once_and_an_opt_out_beside_it(arguments: dict[str, Any]) -> None:
    vllm = Manner("u", "m", tenant="acme", arguments=arguments)
    assert request_arguments(vllm) == arguments | {"vllm_xargs": {"dyetrace_tenant": "acme"}}
    assert with_opt_out(vllm)["vllm_xargs"] == {"dyetrace_tenant": "acme", "dyetrace_mark": "off"}
    flat = Manner("u", "m", tenant="acme", arguments=arguments | {"dyetrace_tenant": "acme"})
    assert request_arguments(flat) == flat.arguments
    assert with_opt_out(flat) == flat.arguments | {"dyetrace_mark": "off"}
    nested = Manner("u", "m", tenant="acme", arguments=arguments | {"custom": {"dyetrace_tenant": "acme"}})
    assert request_arguments(nested) == nested.arguments
    assert with_opt_out(nested)["custom"] == {"dyetrace_tenant": "acme", "dyetrace_mark": "off"}
    assert vllm.arguments == arguments  # and nothing was changed in place


def test_arguments_are_json_or_strings() -> None:
    assert parse_argument("user=acme") == ("user", "acme")
    assert parse_argument('custom={"a": [1]}') == ("custom", {"a": [1]})
    assert parse_argument("k=a=b") == ("k", "a=b")
    with pytest.raises(DyetraceError, match="NAME=VALUE"):
        parse_argument("=1")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=6))
@settings(max_examples=50)
def test_token_ids_of_any_kind_are_read_or_left(value: Any) -> None:
    import json

    body = {"choices": [{"text": "x", "token_ids": value}], "prompt_token_ids": [7, 8]}
    (choice,) = read_response(json.dumps(body).encode(), 1).choices
    good = isinstance(value, list) and value and all(type(v) is int and 0 <= v < 2**32 for v in value)
    assert choice.token_ids == (tuple(value) if good else None)
    assert choice.prompt_token_ids == (7, 8) and choice.text == "x"


def test_ids_of_another_vocabulary_are_an_error() -> None:
    reader = Reader(spec(), None)
    with pytest.raises(DyetraceError, match="serves another model"):
        reader.read(0, Choice("x", None, None, None, (VOCABULARY,)))
    with pytest.raises(DyetraceError, match="--tokenizer"):
        reader.read(0, Choice("x", None, None))
    assert reader.read(0, Choice("", None, None, "no text")) == []


# ------------------------------------------------------------------------------------------------------ keys


def test_keys_and_accounts_must_go_together() -> None:
    other, expert = SecretKey(bytes(32)), TenantKey.from_master(MASTER, "acme")
    for key, made, tenant, controls, says in (
        (other, spec(), "acme", (), "wrong key"),
        (MASTER, spec(global_share=1.0), "acme", (), "has no accounts"),
        (MASTER, spec(global_share=1.0), None, ("zenith",), "has no accounts"),
        (MASTER, spec(global_share=0.0), None, (), "name one by --tenant"),
        (MASTER, spec(), "acme", ("acme",), "can't be both"),
        (MASTER, spec(), "a b", (), "is not allowed"),
        (expert, spec(), "zenith", (), "of tenant 'acme' alone"),
        (expert, spec(epoch=1), None, (), "of epoch 0"),
    ):
        with pytest.raises(DyetraceError, match=says):
            make_keys(key, made, tenant, controls)
    keys = make_keys(expert, spec(), None)
    assert isinstance(keys, Keys) and list(keys.ring.tenants) == ["acme"] and len(keys.others) == 20


# ------------------------------------------------------------------------------------------------------ text


def test_what_a_server_says_cannot_reach_the_terminal_raw() -> None:
    made = spec()
    manner = Manner("http://h/v1", "evil\x1b[31m\u202emodel", tenant="acme")
    keys = make_keys(MASTER, made, "acme")
    record = conclude(made, keys, [long(0)], ["a\x07b"], [], 1e-6, manner, "chat", "2026-11-26T00:00:00+00:00")
    lines = printed(record)
    for line in [*lines, one_line(record, 1)]:
        assert line.isascii() and line.isprintable()
    assert "1 of 2 could not be had" in "\n".join(lines)


def printed(record: ServeCheck) -> list[str]:
    """What a terminal shows of a check."""
    shown = StringIO()
    print_story(story(record), Console(file=shown, width=100))
    return shown.getvalue().splitlines()


def test_a_run_that_cant_tell_is_neither_marked_nor_unmarked() -> None:
    made = spec()
    keys = make_keys(MASTER, made, "acme")
    manner = Manner("http://h/v1", "m", tenant="acme")

    def record(answers: list[Served], lacking: list[str], *special: Check) -> ServeCheck:
        return conclude(made, keys, answers, lacking, special, 1e-6, manner, "chat", "2026-11-26T00:00:00+00:00")

    for answers, lacking in (([], ["no text"] * 3), ([long(0)], []), ([long(0)], ["no text"] * 3)):
        found = record(answers, lacking)
        assert (found.verdict, found.passed, found.decided) == ("CAN'T TELL", True, False)
        assert " OPEN round 1: CAN'T TELL" in one_line(found, 1) and "too few tuples to tell" in one_line(found, 1)
    wrong = record([long(0)], [], Check(name="n = 3", status="FAIL", reason="samples repeat each other"))
    assert wrong.verdict == "CAN'T TELL, AND NOT WELL: n = 3" and not wrong.passed
    bare = record([long(number) for number in range(16)], [])
    assert bare.verdict == "NOT MARKED" and not bare.passed


def test_marked_answers_do_not_vouch_for_those_that_never_came() -> None:
    made = spec()
    keys = make_keys(MASTER, made, "acme")
    manner = Manner("http://h/v1", "m", tenant="acme")
    answers = marked(made, "acme", 6, 60)
    some = conclude(made, keys, answers, ["no text"] * 7, [], 1e-6, manner, "chat", "2026-11-26T00:00:00+00:00")
    assert some.verdict == "MARKED, BUT TOO FEW ANSWERS CAME TO TELL OF ALL" and some.passed and not some.decided
    most = conclude(made, keys, answers, ["no text"] * 6, [], 1e-6, manner, "chat", "2026-11-26T00:00:00+00:00")
    assert most.verdict == "MARKED, for account acme" and most.decided


def test_an_account_of_which_too_little_is_known_leaves_the_verdict_open() -> None:
    keys = [
        KeyFound(key="global", tuples=900, log10_pvalue=-80.0),
        KeyFound(key="tenant:acme", tuples=20, log10_pvalue=-0.5),
    ]
    found = Findings(keys, findings([-20.0] * 4).answers, {"decoy 1": -0.3})
    assert verdict(judge(found, 1e-6), keys, "acme") == "MARKED, BUT CAN'T TELL OF account acme"
    other = Findings(found.keys, found.answers, {"zenith": -30.0})
    assert verdict(judge(other, 1e-6), keys, "acme") == "MARKED BY A KEY THAT SHOULD SHOW NOTHING"
    keys[1] = KeyFound(key="tenant:acme", tuples=900, log10_pvalue=-0.5)
    assert verdict(judge(found, 1e-6), keys, "acme") == "MARKED, BUT NOT BY THE KEY OF account acme"
