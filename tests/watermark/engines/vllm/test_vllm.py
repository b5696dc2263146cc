"""vLLM: the adapter at both runners' interfaces, and whole in the real engine. Runs where vLLM is installed.

vLLM's CPU build cannot start when numba was imported before its worker, so this file loads numba's users late.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.filterwarnings("default")

import torch  # noqa: E402
from vllm import SamplingParams  # noqa: E402
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality  # noqa: E402

from tests.watermark.engines.operator import KEY, VOCABULARY, settings_in, spec_of  # noqa: E402
from watermark.errors import DyetraceError  # noqa: E402

TENANTS = ("acme", "zeta", "umbra")
PREEMPTING_BLOCKS = 14


# --- the real engine -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A small random Llama: two layers, 500 tokens, an entropy of some 3 nats."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        network.lm_head.weight.mul_(12)
    network.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def configured(folder: Path) -> Iterator[Path]:
    spec = spec_of(global_share=0.5, subkeys=4)
    settings_in(folder, spec)
    settings = {
        "spec": str(folder / "spec.json"),
        "key": f"file:{folder / 'key'}",
        "tenants": list(TENANTS),
        "allow_off": True,
        "metrics": str(folder / "metrics.prom"),
        "ledger": str(folder / "ledgers"),
        "ledger_megabytes": 1,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    before = dict(os.environ)
    os.environ |= {"DYETRACE_CONFIG": str(folder / "settings.json"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    yield folder
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def engine(model: Path, configured: Path) -> Any:
    from vllm import LLM

    return LLM(
        str(model),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=32,  # prompts are read in parts
        num_gpu_blocks_override=PREEMPTING_BLOCKS,
        block_size=32,
        enable_prefix_caching=True,
        max_logprobs=-1,
        gpu_memory_utilization=0.2,
    )


@dataclass(frozen=True)
class Asked:
    tenant: str
    params: dict[str, Any]
    marked: bool = True


def requests() -> list[Asked]:
    """Accounts, lengths, opt-outs, truncations, penalties and several samples, mixed."""
    kinds: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"top_p": 0.8}, True),
        ({"top_k": 7}, True),
        ({"temperature": 0.7, "top_k": 20, "top_p": 0.9}, True),
        ({"min_p": 0.05, "temperature": 1.3}, True),
        ({"n": 3}, True),
        ({"extra_args": {"dyetrace_mark": "off"}}, False),
        ({"repetition_penalty": 1.2, "presence_penalty": 0.3}, True),
        ({"stop_token_ids": [5, 6, 7]}, True),
    ]
    return [
        Asked(TENANTS[index % 3], params | {"max_tokens": 20 + 13 * index % 110}, marked)
        for index, (params, marked) in enumerate(kinds * 3)
    ]


@pytest.fixture(scope="module")
def served(engine: Any) -> list[tuple[Asked, Any, Any]]:
    rng = np.random.default_rng(0)
    asked = requests()
    prompts = [{"prompt_token_ids": rng.integers(10, VOCABULARY, 2 + 9 * i % 70).tolist()} for i in range(len(asked))]
    params = []
    for one in asked:
        extra = {"dyetrace_tenant": one.tenant} | one.params.get("extra_args", {})
        usual = {"temperature": 1.0, "logprobs": -1, "detokenize": False}
        params.append(SamplingParams(**(usual | one.params | {"extra_args": extra})))
    outputs = engine.generate(prompts, params, use_tqdm=False)
    return [(one, output, sample) for one, output in zip(asked, outputs, strict=True) for sample in output.outputs]


def final(logprobs: dict[int, Any], params: dict[str, Any]) -> dict[int, float]:
    """The final distribution from the model's own: temperature, min_p, top-k, top-p, in float64."""
    ids = np.array(list(logprobs))
    raw = np.array([entry.logprob for entry in logprobs.values()], dtype=np.float64)
    ids, raw = ids[:VOCABULARY], raw[:VOCABULARY]  # the sampled token is listed once more in front
    logits = raw / params.get("temperature", 1.0)
    p = np.exp(logits - logits.max())
    kept = p >= params.get("min_p", 0.0)
    if k := params.get("top_k"):
        kept &= p >= np.sort(p)[-k]
    if (top_p := params.get("top_p", 1.0)) < 1:
        order = np.argsort(-np.where(kept, p, 0))
        mass = np.cumsum((p * kept)[order]) / (p * kept).sum()
        inside = np.zeros(len(p), dtype=bool)
        inside[order[: int(np.searchsorted(mass, top_p)) + 1]] = True
        kept &= inside
    return {int(t): float(x) for t, x in zip(ids[kept], logits[kept], strict=True)}


def test_every_choice_of_the_real_engine_is_the_references(served: Any, configured: Path) -> None:
    from tests.watermark.engines.conformance import Answered, conform
    from watermark.spec import load_spec

    answers = []
    for asked, output, sample in served:
        changed = {"repetition_penalty", "presence_penalty"} & asked.params.keys()
        known = None if changed or not asked.marked else [final(row, asked.params) for row in sample.logprobs]
        answers.append(
            Answered(asked.tenant, output.prompt_token_ids, list(sample.token_ids), asked.marked, candidates=known)
        )
    report = conform(load_spec(configured / "spec.json"), KEY, answers, log10_p=-12)
    assert report.tuples > 1000 and report.mismatches == 0


def test_the_engine_did_preempt(engine: Any) -> None:
    # 8 answers of up to 200 tokens do not fit into 14 blocks of 32: some were resumed, and the check above holds.
    assert PREEMPTING_BLOCKS * 32 < 8 * 100


def test_samples_of_one_prompt_differ(served: Any) -> None:
    by_request: dict[int, set[tuple[int, ...]]] = {}
    for _, output, sample in served:
        if len(output.outputs) == 3:
            by_request.setdefault(id(output), set()).add(tuple(sample.token_ids))
    assert by_request and all(len(texts) == 3 for texts in by_request.values())


def test_a_seed_gives_the_same_answer_again(engine: Any) -> None:
    params = SamplingParams(max_tokens=20, seed=5, extra_args={"dyetrace_tenant": "acme"}, detokenize=False)
    prompt = {"prompt_token_ids": [10, 11, 12]}
    first, second = (engine.generate([prompt], params, use_tqdm=False)[0].outputs[0].token_ids for _ in range(2))
    assert list(first) == list(second)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0.0}, "nothing to choose"),
        ({"n": 5}, "4 sub-keys"),
        ({"extra_args": {"dyetrace_tenant": "mallory"}}, "not known to this server"),
        ({"extra_args": {"dyetrace_key": "x"}}, "unknown argument"),
        ({"extra_args": {}}, "names no account"),
        ({"extra_args": {"dyetrace_tenant": "acme", "dyetrace_subkey": 1}}, "chooses sub-keys itself"),
    ],
)
def test_requests_that_cannot_be_marked_are_refused_where_they_arrive(
    engine: Any, params: dict[str, Any], message: str
) -> None:
    asked = SamplingParams(**({"extra_args": {"dyetrace_tenant": "acme"}, "detokenize": False} | params))
    with pytest.raises(Exception, match=message):
        engine.generate([{"prompt_token_ids": [3, 4]}], asked, use_tqdm=False)


def test_everything_is_counted_and_the_ledger_knows_what_was_served(engine: Any, served: Any, configured: Path) -> None:
    from watermark.engines.vllm.processor import hook
    from watermark.keys import KeyRing
    from watermark.ledger import Ledger, answer_contexts
    from watermark.spec import load_spec

    mine = hook()
    assert mine is not None
    engine.generate([{"prompt_token_ids": [3]}], SamplingParams(max_tokens=1, extra_args={"dyetrace_tenant": "acme"},
                    detokenize=False), use_tqdm=False)  # the last answers leave the batch  # fmt: skip
    assert mine.counters.get("dyetrace_requests_total", result="opted out") >= 3  # one preempted early begins twice
    assert mine.counters.get("dyetrace_alarms_total") == 0
    told = sum(
        mine.counters.get("dyetrace_tokens_total", marked=marked, why=why)
        for marked, why in (("yes", ""), ("no", "repeated context"))
    )
    assert told >= sum(len(sample.token_ids) for asked, _, sample in served if asked.marked)
    spec = load_spec(configured / "spec.json")
    ring = KeyRing.from_master(KEY, 0, TENANTS)
    path = next((configured / "ledgers").glob("*.ledger"))
    with Ledger.open(path, spec, ring) as ledger:
        for asked, output, sample in served:
            contexts = answer_contexts(output.prompt_token_ids, list(sample.token_ids), spec.context_width)
            counts = ledger.counts_by_subkey(contexts, asked.tenant).sum(1)
            assert (counts >= 1).all() or not asked.marked


# --- the V2 runner of the real engine, its kernels interpreted ------------------------------------------


def test_every_choice_of_the_second_runner_is_the_references_beside_vllms_own_mark(
    model: Path, configured: Path, tmp_path: Path
) -> None:
    kinds: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"temperature": 0.8}, True),
        ({"min_p": 0.05}, True),  # vLLM's kernel of top-k and top-p does not run under Triton's interpreter
        ({"extra_args": {"dyetrace_mark": "off"}}, False),
        ({"n": 2}, True),
        ({"repetition_penalty": 1.2}, True),
    ]
    job: list[dict[str, Any]] = []
    for index, (params, _) in enumerate(kinds):
        extra = {"dyetrace_tenant": TENANTS[index % 2]} | params.get("extra_args", {})
        usual = {"temperature": 1.0, "max_tokens": 40, "ignore_eos": True}
        job.append({"prompt": list(range(9, 12 + 5 * index)), "params": usual | params | {"extra_args": extra}})
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "tests.watermark.engines.vllm.second_runner", str(model)]
    command += [str(tmp_path / "job.json"), str(tmp_path / "answers.json")]
    # The engine of the other tests writes to the ledger of these settings.
    own = os.environ | {"DYETRACE_LEDGER": str(tmp_path / "ledgers"), "DYETRACE_METRICS": str(tmp_path / "metrics")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=own)
    assert done.returncode == 0, done.stderr[-3000:]
    from tests.watermark.engines.conformance import Answered, conform
    from watermark.spec import load_spec

    answers = []
    for (params, marked), asked, found in zip(
        kinds, job, json.loads((tmp_path / "answers.json").read_text()), strict=True
    ):
        for sample in found["samples"]:
            rows = [{int(token): SimpleNamespace(logprob=value) for token, value in row.items()}
                    for row in sample["logprobs"]]  # fmt: skip
            known = [final(row, params) for row in rows] if marked and "repetition_penalty" not in params else None
            tenant = asked["params"]["extra_args"]["dyetrace_tenant"]
            answers.append(Answered(tenant, found["prompt_token_ids"], sample["token_ids"], marked, candidates=known))
    report = conform(load_spec(configured / "spec.json"), KEY, answers, log10_p=-8)
    assert report.tuples > 150


# --- an engine in which the processor would be dropped does not start -----------------------------------


def test_speculative_decoding_does_not_start(model: Path, configured: Path) -> None:
    program = (
        "from vllm import LLM\n"
        f"LLM({str(model)!r}, skip_tokenizer_init=True, dtype='float32', max_model_len=128, speculative_config="
        "{'method': 'ngram', 'num_speculative_tokens': 2, 'prompt_lookup_max': 2}, gpu_memory_utilization=0.1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "logits processors are not supported when speculative decoding" in done.stderr + done.stdout


def test_the_processor_is_named_once_however_it_was_given() -> None:
    from watermark.engines.vllm.processor import DyetraceProcessor
    from watermark.engines.vllm.start import PROCESSOR, named

    assert named(None) == named([PROCESSOR]) == named([DyetraceProcessor]) == [PROCESSOR]
    assert named(["a:B"]) == ["a:B", PROCESSOR]


def test_without_the_start_up_check_every_request_is_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from watermark.engines.vllm import start
    from watermark.engines.vllm.processor import DyetraceProcessor

    monkeypatch.setattr(start, "_installed", False)
    with pytest.raises(ValueError, match="VLLM_PLUGINS"):
        DyetraceProcessor.validate_params(SamplingParams(extra_args={"dyetrace_tenant": "acme"}))


def test_an_installed_processor_that_is_not_configured_leaves_both_runners_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from watermark.engines.vllm import processor as adapter

    monkeypatch.delenv("DYETRACE_CONFIG", raising=False)
    monkeypatch.setattr(adapter, "hook", adapter.hook.__wrapped__)
    processor = adapter.DyetraceProcessor(SimpleNamespace(), torch.device("cpu"))
    logits = torch.randn(2, VOCABULARY)
    processor.update_state(BatchUpdate(1, [], [(0, SamplingParams(), [5], [])], []))
    assert processor.add_request(0, SamplingParams()) is False
    processor.apply_staged_writes()
    assert torch.equal(processor.apply(logits.clone()), logits)
    assert torch.equal(processor.apply(logits.clone(), SimpleNamespace()), logits)


# --- V1's interface by hand ------------------------------------------------------------------------------


def runner(tmp_path: Path, **fields: Any) -> Any:
    from watermark.engines.hook.hook import Hook
    from watermark.engines.vllm.first_runner import FirstRunner

    scheme = fields.pop("scheme", "gumbel")
    return FirstRunner(Hook(settings_in(tmp_path, spec_of(scheme=scheme), **fields)))


def add(index: int, tokens: list[int], prompt: list[int], **params: Any) -> Any:
    return index, SamplingParams(**params), prompt, tokens


def chosen(batch: Any, rows: int) -> list[int]:
    logits = torch.zeros(rows, VOCABULARY)
    return batch.apply(logits).argmax(-1).tolist()


def test_rows_follow_their_requests_through_moves_and_swaps(tmp_path: Path) -> None:
    batch = runner(tmp_path)
    added = [add(i, [], [i, i + 1], seed=i) for i in range(3)]
    batch.update(BatchUpdate(3, removed=[], added=added, moved=[]))
    before = chosen(batch, 3)
    assert len(set(before)) == 3
    batch.update(BatchUpdate(3, removed=[], added=[], moved=[(0, 2, MoveDirectionality.SWAP)]))
    assert chosen(batch, 3) == before[::-1]
    batch.update(BatchUpdate(2, removed=[0], added=[], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert chosen(batch, 2) == [before[0], before[1]]


def test_an_answer_that_another_is_moved_over_is_finished(tmp_path: Path) -> None:
    batch = runner(tmp_path)
    done = [4, 5, 6]
    batch.update(BatchUpdate(2, removed=[], added=[add(0, [], [1]), add(1, [], [2])], moved=[]))
    batch._answers[0][0].tokens = done
    batch.update(BatchUpdate(1, removed=[], added=[], moved=[(1, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert batch._hook.counters.get("dyetrace_tokens_total", marked="yes", why="") == len(done)


def test_a_request_may_take_the_place_of_another(tmp_path: Path) -> None:
    batch = runner(tmp_path)
    batch.update(BatchUpdate(1, removed=[], added=[add(0, [], [1, 2], seed=0)], moved=[]))
    first = chosen(batch, 1)
    batch.update(BatchUpdate(1, removed=[], added=[add(0, [], [8, 9], seed=0)], moved=[]))
    assert chosen(batch, 1) != first


def test_placeholders_in_place_of_tokens_stop_the_engine_or_are_counted(tmp_path: Path) -> None:
    strict = runner(tmp_path)
    strict.update(BatchUpdate(1, removed=[], added=[add(0, [7, -1], [1, 2], seed=0)], moved=[]))
    with pytest.raises(DyetraceError, match="asynchronous scheduling"):
        chosen(strict, 1)
    lenient = runner(tmp_path, on_unmarkable="pass")
    lenient.update(BatchUpdate(1, removed=[], added=[add(0, [7, -1], [1, 2], seed=0)], moved=[]))
    assert torch.equal(lenient.apply(torch.zeros(1, VOCABULARY)), torch.zeros(1, VOCABULARY))
    assert lenient._hook.counters.get("dyetrace_tokens_total", marked="no", why="tokens hidden") == 1


def test_masked_tokens_are_never_chosen(tmp_path: Path) -> None:
    batch = runner(tmp_path)
    batch.update(BatchUpdate(1, removed=[], added=[add(0, [], [1, 2], seed=0)], moved=[]))
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, [3, 9]] = 0.0
    assert batch.apply(logits).argmax(-1).item() in (3, 9)
    assert torch.isneginf(logits).sum() == VOCABULARY - 2


def test_a_choice_is_the_one_of_the_truncated_distribution(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    cuts: list[dict[str, Any]] = [{"top_p": 0.3}, {"top_k": 2}, {"top_k": 5, "top_p": 0.5}]
    for trial, params in enumerate(cuts * 20):
        whole, cut = runner(tmp_path), runner(tmp_path)
        logits = torch.randn(1, VOCABULARY, generator=generator) * 3
        for batch, some in ((whole, params), (cut, {})):
            batch.update(BatchUpdate(1, removed=[], added=[add(0, [], [trial], seed=0, **some)], moved=[]))
        from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

        k = torch.tensor([params["top_k"]]) if "top_k" in params else None
        p = torch.tensor([params["top_p"]]) if "top_p" in params else None
        truncated = apply_top_k_top_p(logits.clone(), k, p)
        assert whole.apply(logits.clone()).argmax() == cut.apply(truncated).argmax()


def test_a_bias_is_that_of_the_distribution_after_temperature(tmp_path: Path) -> None:
    batch = runner(tmp_path, scheme="green_list")
    batch.update(BatchUpdate(2, removed=[], added=[add(0, [], [1], temperature=0.5), add(1, [], [1], temperature=0.0)],
                             moved=[]))  # fmt: skip
    logits = batch.apply(torch.zeros(2, VOCABULARY))
    assert set(logits[0].unique().tolist()) == {0.0, 1.0}  # 2 nats, times the temperature that divides later
    assert set(logits[1].unique().tolist()) == {0.0, 2.0}


# --- V2's interface by hand ------------------------------------------------------------------------------


class Slots:
    """What the V2 runner shows a processor: tokens by slot, lengths, and the layout of a step."""

    def __init__(self, slots: int = 4, length: int = 64) -> None:
        self.device = torch.device("cpu")
        self.max_num_reqs, self.vocab_size = slots, VOCABULARY
        self.all_token_ids = SimpleNamespace(gpu=torch.zeros(slots, length, dtype=torch.int32))
        self.prompt_len = SimpleNamespace(np=np.zeros(slots, dtype=np.int32))
        self.prefill_len = SimpleNamespace(np=np.zeros(slots, dtype=np.int32))
        self.total_len = SimpleNamespace(gpu=torch.zeros(slots, dtype=torch.int32))

    def fill(self, slot: int, prompt: list[int], tokens: list[int]) -> None:
        ids = [*prompt, *tokens]
        self.all_token_ids.gpu[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.prompt_len.np[slot], self.prefill_len.np[slot] = len(prompt), len(ids)
        self.total_len.gpu[slot] = len(ids)

    def step(self, rows: list[tuple[int, list[int]]]) -> Any:
        """Rows of (slot, drafts): one row for the last token, one more for each draft."""
        slots, local, ids, pos = [], [], [], []
        for slot, drafts in rows:
            length = int(self.total_len.gpu[slot])
            fed = [int(self.all_token_ids.gpu[slot, length - 1]), *drafts]
            for place, token in enumerate(fed):
                slots.append(slot)
                local.append(place)
                ids.append(token)
                pos.append(length - 1 + place)
        mapping = [slot for slot, _ in rows]
        return SimpleNamespace(
            expanded_idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping=torch.tensor(mapping, dtype=torch.int32),
            idx_mapping_np=np.array(mapping, dtype=np.int32),
            expanded_local_pos=torch.tensor(local, dtype=torch.int32),
            input_ids=torch.tensor(ids, dtype=torch.int32),
            pos=torch.tensor(pos, dtype=torch.int64),
            seq_lens_upper_bound_np=np.array([max(pos) + 1] * len(rows), dtype=np.int32),
        )


def slot_rows(tmp_path: Path, state: Slots, **fields: Any) -> Any:
    from watermark.engines.hook.hook import Hook
    from watermark.engines.vllm.second_runner import SlotRows

    return SlotRows(Hook(settings_in(tmp_path, spec_of(), **fields)), state)


def reference(tmp_path: Path, prompt: list[int], tokens: list[int], seed: int) -> int:
    """V1's choice for the same tokens on flat logits."""
    batch = runner(tmp_path)
    batch.update(BatchUpdate(1, removed=[], added=[add(0, tokens, prompt, seed=seed)], moved=[]))
    return chosen(batch, 1)[0]


def test_both_runners_choose_alike_and_drafts_have_contexts_of_their_own(tmp_path: Path) -> None:
    state = Slots()
    rows = slot_rows(tmp_path, state)
    for slot, prompt in ((2, [1, 2, 3]), (0, [9])):
        assert rows.add(slot, SamplingParams(seed=slot))
        state.fill(slot, prompt, [])
    rows.begin()
    ctx = state.step([(2, [50, 51]), (0, [])])
    found = rows.apply(torch.zeros(4, VOCABULARY), ctx).argmax(-1).tolist()
    wanted = [reference(tmp_path, [1, 2, 3], drafts, 2) for drafts in ([], [50], [50, 51])]
    assert found == [*wanted, reference(tmp_path, [9], [], 0)]


def test_a_context_that_chose_before_is_left_to_the_engine(tmp_path: Path) -> None:
    state = Slots()
    rows = slot_rows(tmp_path, state)
    rows.add(1, SamplingParams(seed=0))
    state.fill(1, [7, 8], [30, 7, 8])  # (7, 8) chose 30
    rows.begin()
    flat = torch.zeros(1, VOCABULARY)
    assert torch.equal(rows.apply(flat.clone(), state.step([(1, [])])), flat)


def test_a_recycled_slot_forgets_its_former_request(tmp_path: Path) -> None:
    state = Slots()
    rows = slot_rows(tmp_path, state, allow_off=True)
    rows.add(1, SamplingParams(seed=0, temperature=0.5, top_k=3))
    state.fill(1, [7, 8], [])
    rows.begin()
    state.fill(1, [7, 8], [4, 5])
    assert not rows.add(1, SamplingParams(extra_args={"dyetrace_mark": "off"}))
    assert rows._hook.counters.get("dyetrace_tokens_total", marked="yes", why="") == 2
    state.fill(1, [9], [])
    rows.begin()
    flat = torch.zeros(1, VOCABULARY)
    assert torch.equal(rows.apply(flat.clone(), state.step([(1, [])])), flat)


def test_the_requests_own_truncation_is_applied_before_the_choice(tmp_path: Path) -> None:
    state = Slots()
    rows = slot_rows(tmp_path, state)
    rows.add(0, SamplingParams(seed=0, top_k=1))
    state.fill(0, [3, 4], [])
    rows.begin()
    logits = torch.randn(1, VOCABULARY)
    assert rows.apply(logits.clone(), state.step([(0, [])])).argmax() == logits.argmax()
