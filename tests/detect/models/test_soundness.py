"""The self-test of models: causal ones of every kind pass, and nothing that looks ahead is ever read."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.models.forward import Model
from detect.models.network import logits_at, windows
from detect.models.reading import Positions, ReadingDocument, ReadingText, positions
from detect.models.seen import model_hash
from detect.models.soundness import check_branches, check_sound, unfit
from detect.student.verdict.evidence import EVIDENCE_FILE
from tests.tiny_models import (
    AROUND_TEXT,
    CAUSAL,
    NOT_CAUSAL,
    VOCABULARY,
    around_text,
    made,
    saved,
    tokenizer,
    write_gguf,
)
from watermark.errors import DyetraceError
from watermark.keys import SecretKey, write_key_file
from watermark.models.folder import load_model
from watermark.models.tokenizer import tokenizer_fingerprint
from watermark.spec import WatermarkSpec, write_spec

PROPHET: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_decoder_layers": 2}
PROPHET |= {"num_decoder_attention_heads": 2, "decoder_ffn_dim": 64, "max_position_embeddings": 128, "init_std": 0.3}
NO_TREES = {"bloom", "gpt1", "mamba"}


def refusal(check: Callable[[], object]) -> str:
    with pytest.raises(DyetraceError) as caught:
        check()
    message = str(caught.value)
    assert "\n" not in message
    return message


def number_type(name: str) -> Any:
    import torch

    return getattr(torch, name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_model_passes(family: str, dtype: str) -> None:
    network = made(CAUSAL[family]).to(number_type(dtype))
    check_sound(network, "a model", VOCABULARY)
    if family in NO_TREES:
        assert "another tokenizer" in refusal(lambda: check_branches(network, VOCABULARY))
    else:
        check_branches(network, VOCABULARY)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", NOT_CAUSAL)
def test_a_model_that_looks_ahead_is_refused_however_it_came_in(family: str, dtype: str, tmp_path: Path) -> None:
    network, _ = load_model(saved(made(NOT_CAUSAL[family]), tmp_path / "model"), dtype)
    message = refusal(lambda: check_sound(network, "models/suspect", VOCABULARY))
    if family == "xlnet" and dtype != "float32":  # it mixes number types and can't be run in these
        assert "its forward pass fails" in message and str(tmp_path) in message
    else:
        assert message.startswith("models/suspect can't be read") and "later tokens" in message


def test_a_trained_model_passes_and_is_refused_once_it_looks_ahead(smollm2_dir: Path) -> None:
    import torch

    network, own = load_model(smollm2_dir)
    check_sound(network, "the demo model", len(own))
    check_branches(network, len(own))
    assert unfit(network, "the demo model", own) is None
    with torch.no_grad():  # as with the tokenizer of another model
        weight = network.get_input_embeddings().weight
        weight.copy_(weight[torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))])
    assert "the demo model predicts plain text hardly better than a guess" in str(unfit(network, "the demo model", own))
    for module in network.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    network.config.is_causal = False
    assert "later tokens" in refusal(lambda: check_sound(network, "the demo model", len(own)))


def changed(network: Any, forward: Callable[..., Any]) -> Any:
    """The network with another forward pass, which gets the old one first."""
    before = network.forward

    def after(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(before, *args, **kwargs)

    network.forward = types.MethodType(after, network)
    return network


def test_a_peek_at_the_next_token_alone_is_seen() -> None:
    def peeking(before: Any, input_ids: Any, **more: Any) -> Any:
        out = before(input_ids=input_ids, **more)
        out.logits[:, :-1].scatter_add_(2, input_ids[:, 1:, None], 0.01 * out.logits[:, :-1, :1].abs())
        return out

    network = changed(made(CAUSAL["llama"]), peeking)
    assert "later tokens" in refusal(lambda: check_sound(network, "a model", VOCABULARY))


def test_a_model_that_counts_what_follows_is_refused() -> None:
    network = made(("ProphetNet", {**PROPHET}))  # its attention counts places from the end of what it reads
    assert "how much text follows" in refusal(lambda: check_sound(network, "a model", VOCABULARY))


def test_a_token_that_a_model_has_no_numbers_for_is_named() -> None:
    import torch

    network = made(CAUSAL["llama"])
    ids = torch.tensor([[5, VOCABULARY + 3, 6]])
    message = refusal(lambda: logits_at(network, {"input_ids": ids}, torch.arange(3)))
    assert f"token {VOCABULARY + 3}" in message and f"{VOCABULARY} tokens" in message


@pytest.mark.parametrize("name", AROUND_TEXT)
def test_a_model_that_also_sees_is_sound_on_text(name: str) -> None:
    check_sound(around_text(name), "a model", VOCABULARY)


@pytest.mark.parametrize("name", ["LlavaForConditionalGeneration", "Gemma3ForConditionalGeneration"])
def test_one_whose_text_model_looks_ahead_is_refused(name: str) -> None:
    network = around_text(name)
    for module in network.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
        if hasattr(module, "config"):
            module.config.is_causal = module.config.use_bidirectional_attention = False
    inner = network.config.get_text_config()
    inner.is_causal, inner.use_bidirectional_attention = False, True
    assert "later tokens" in refusal(lambda: check_sound(network, "a model", VOCABULARY))


def test_neighbours_and_padding_must_not_change_a_row() -> None:
    def mixing(before: Any, **inputs: Any) -> Any:
        out = before(**inputs)
        out.logits += out.logits.roll(1, 0)
        return out

    def counting(before: Any, attention_mask: Any, **inputs: Any) -> Any:
        out = before(attention_mask=attention_mask, **inputs)
        out.logits *= 1 + (attention_mask == 0).sum(1)[:, None, None]
        return out

    assert "other sequences" in refusal(lambda: check_sound(changed(made(CAUSAL["llama"]), mixing), "a", VOCABULARY))
    assert "padding" in refusal(lambda: check_sound(changed(made(CAUSAL["llama"]), counting), "a", VOCABULARY))


@pytest.mark.parametrize("place", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(number: float, place: str) -> None:
    network = made(CAUSAL["llama"])
    network.get_parameter(place).data[5, 3] = number
    assert "weights hold NaN" in refusal(lambda: check_sound(network, "a model", VOCABULARY))


def test_a_nan_that_only_one_token_brings_up_is_refused_when_it_is_read() -> None:
    network = made(CAUSAL["llama"])
    network.get_input_embeddings().weight.data[7] = float("nan")
    sequence = np.array([3, 4, 5, 6, 7, 8, 9, 10], dtype=np.uint32)
    text = ReadingText("a file", "", [ReadingDocument("d", sequence, 0)], marked=False)
    model = Model(network, VOCABULARY)
    assert "NaN" in refusal(lambda: model.predict(text, positions(text, 1, 99)) and None)


def test_a_forward_pass_that_fails_is_one_line() -> None:
    def failing(before: Any, **_: Any) -> Any:
        raise IndexError("index out of range\nin self")

    message = refusal(lambda: check_sound(changed(made(CAUSAL["llama"]), failing), "a", VOCABULARY))
    assert "forward pass fails" in message and "IndexError: index out of range in self" in message


# --- where logits come from -----------------------------------------------------------------------------------------


def with_forward(network: Any, forward: Any) -> Any:
    network.forward = types.MethodType(forward, network)
    return network


def swallowing() -> Any:
    network = made(CAUSAL["llama"])
    before = network.forward

    def forward(self: Any, input_ids: Any = None, logits_to_keep: Any = 0, **more: Any) -> Any:
        return before(input_ids=input_ids, **more)

    return with_forward(network, forward)


def lacking() -> Any:
    network = made(CAUSAL["llama"])
    before = network.forward

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, use_cache: Any = None) -> Any:
        return before(input_ids=input_ids, attention_mask=attention_mask)

    return with_forward(network, forward)


@pytest.mark.parametrize("make", [swallowing, lacking])
def test_a_forward_without_logits_to_keep_is_read_at_the_right_places(make: Callable[[], Any]) -> None:
    import torch

    network, plain = make(), made(CAUSAL["llama"])
    check_sound(network, "a model", VOCABULARY)
    sequences = [np.random.default_rng(i).integers(3, VOCABULARY, 30 + i, dtype=np.uint32) for i in range(3)]
    text = ReadingText("a file", "", [ReadingDocument(str(i), s, 0) for i, s in enumerate(sequences)], marked=False)
    where = Positions(np.array([0, 0, 1, 2]), np.array([4, 30, 9, 17]), np.zeros(4, dtype=np.uint64))
    mine, right = Model(network, VOCABULARY).predict(text, where), Model(plain, VOCABULARY).predict(text, where)
    np.testing.assert_array_equal(mine.ids, right.ids)
    np.testing.assert_array_equal(mine.probabilities, right.probabilities)
    ids = torch.from_numpy(sequences[0].astype(np.int64))[None]
    with torch.inference_mode():
        kept = logits_at(network, {"input_ids": ids}, torch.tensor([2, 5]))
        torch.testing.assert_close(kept, plain(input_ids=ids).logits[:, [2, 5]])


def test_logits_of_other_places_than_asked_for_are_refused() -> None:
    network = made(CAUSAL["llama"])
    before = network.forward

    def last(self: Any, input_ids: Any = None, logits_to_keep: Any = 0, **more: Any) -> Any:
        return before(input_ids=input_ids, logits_to_keep=len(logits_to_keep), **more)

    message = refusal(lambda: check_sound(with_forward(network, last), "a model", VOCABULARY))
    assert "gives those of others" in message

    def short(self: Any, input_ids: Any = None, **more: Any) -> Any:
        return before(input_ids=input_ids[:, 1:], logits_to_keep=0)

    assert "logits at 31 places for 32 tokens" in refusal(
        lambda: check_sound(with_forward(made(CAUSAL["llama"]), short), "a model", VOCABULARY)
    )


# --- models that read less than a document -------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "most"), [(1, 1), (5, 1), (9, 4), (9, 9), (10, 9), (100, 7), (8, 20)])
def test_windows_predict_each_place_once_from_what_stands_in_them(length: int, most: int) -> None:
    places: list[Any] = []
    for first, start, stop in windows(length, most):
        assert first < start < stop <= first + most + 1
        places += range(start, stop)
    assert places == list(range(1, length + 1))


@pytest.mark.parametrize("family", ["gpt1", "gpt2"])
def test_a_document_longer_than_a_model_reads_is_read_in_windows(family: str) -> None:
    import torch

    kind, fields = CAUSAL[family]
    network = made((kind, {**fields, "n_positions": 40}))
    check_sound(network, "a model", VOCABULARY)
    sequence = np.random.default_rng(1).integers(3, VOCABULARY, 130, dtype=np.uint32)
    text = ReadingText("a file", "", [ReadingDocument("d", sequence, 0)] * 2, marked=False)
    where = Positions(np.repeat([0, 1], 130), np.tile(np.arange(1, 131), 2), np.zeros(260, dtype=np.uint64))
    found = Model(network, VOCABULARY).predict(text, where)
    assert found.known.all()
    for first, start, stop in windows(130, 40):
        ids = torch.from_numpy(sequence[first : stop - 1].astype(np.int64))[None]
        with torch.inference_mode():
            q = network(input_ids=ids).logits[0].softmax(-1).numpy()
        for place in range(start, stop):
            best = found.ids[130 + place - 1, 0]
            np.testing.assert_allclose(found.probabilities[130 + place - 1, 0], q[place - 1 - first, best], rtol=1e-3)


# --- through the command line --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key, a spec, a text to read and models by name."""
    folder = tmp_path_factory.mktemp("bench")
    key = SecretKey(bytes(range(32)))
    write_key_file(folder / "owner.key", key)
    spec = WatermarkSpec(
        context_width=1,
        subkeys=1,
        vocabulary_size=VOCABULARY,
        tokenizer=tokenizer_fingerprint(tokenizer()),
        key_fingerprint=key.fingerprint,
    )
    write_spec(folder / "spec.json", spec)
    words = np.random.default_rng(2).integers(3, VOCABULARY, 400)
    (folder / "text.txt").write_text(" ".join(map(str, words.tolist())))
    saved(made(CAUSAL["llama"]), folder / "causal")
    saved(made(CAUSAL["llama"], seed=1), folder / "other")
    saved(made(CAUSAL["llama"]), folder / "again")
    for family in NOT_CAUSAL:
        saved(made(NOT_CAUSAL[family]), folder / f"ahead-{family}")
    holes = made(CAUSAL["llama"])
    holes.lm_head.weight.data[:] = float("nan")
    saved(holes, folder / "nan")
    (saved(made(CAUSAL["llama"]), folder / "adapter") / "adapter_config.json").write_text("{}")
    _save_lora(folder / "other", folder / "lora")
    write_gguf(made(CAUSAL["llama"], seed=1), folder / "gguf.gguf", quantised=True)
    return folder


def _save_lora(base: Path, folder: Path) -> None:
    """An adapter that changes its base, by which it is named; and the two merged."""
    import warnings

    import peft
    import torch

    network, _ = load_model(base, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        wrapped = peft.get_peft_model(network, settings)
        wrapped.save_pretrained(folder)
        saved(wrapped.merge_and_unload(), folder.with_name("merged"))


def trace(bench: Path, output: Path, student: str, *more: object) -> tuple[int, str]:
    words = ["trace", "weights", bench / student, "--read", bench / "text.txt", "--spec", bench / "spec.json"]
    words += ["--key", f"file:{bench / 'owner.key'}", "--tokenizer", bench / "causal", "--dtype", "float32"]
    words += ["--decoys", 20, "--no-pdf", "-o", output, *more]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.output and (result.exception is None or isinstance(result.exception, SystemExit))
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def causal(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The trace of an innocent model: its folder, and what was said."""
    folder = tmp_path_factory.mktemp("causal") / "out"
    status, output = trace(bench, folder, "causal", "--reference", bench / "other")
    assert status == 0
    return folder, output


@pytest.mark.parametrize("role", ["suspect", "reference", "control", "calibration"])
@pytest.mark.parametrize("family", NOT_CAUSAL)
def test_the_command_reads_no_model_that_looks_ahead(family: str, role: str, bench: Path, tmp_path: Path) -> None:
    ahead = f"ahead-{family}"
    given: dict[str, tuple[str, list[object]]] = {
        "suspect": (ahead, []),
        "reference": ("causal", ["--reference", bench / ahead]),
        "control": ("causal", ["--control", bench / ahead]),
        "calibration": ("causal", ["--calibrate", f"{bench / ahead}=0.5", "--calibrate", f"{bench / 'other'}=0"]),
    }
    student, more = given[role]
    status, output = trace(bench, tmp_path / "out", student, *more)
    assert status == 2
    told = [line for line in output.splitlines() if "later tokens" in line]
    assert len(told) == 1 and ahead in told[0]
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("student", "more", "says"),
    [
        ("nan", (), "NaN"),
        ("adapter", (), "merge"),
        ("causal", ("--reference", "again"), "same model"),
        ("causal", ("--reference", "causal"), "same model"),
    ],
)
def test_what_else_cannot_be_read_is_one_line(
    student: str, more: tuple[str, ...], says: str, bench: Path, tmp_path: Path
) -> None:
    words = [bench / word if not word.startswith("-") else word for word in more]
    status, output = trace(bench, tmp_path / "out", student, *words)
    assert status == 2 and sum(says in line for line in output.splitlines()) == 1


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "wrapped."])
def test_a_suspect_saved_by_a_wrapper_gives_the_same_evidence_or_none(
    prefix: str, bench: Path, causal: tuple[Path, str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(bench / "causal", tmp_path / "wrapped")
    file = tmp_path / "wrapped" / "model.safetensors"
    save_file({prefix + name: value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    status, output = trace(bench, tmp_path / "out", str(tmp_path / "wrapped"), "--reference", bench / "other")
    if prefix == "wrapped.":
        assert status == 2 and "missing (lm_head.weight" in output and not (tmp_path / "out" / "report.json").exists()
        return
    assert status == 0 and f"under the prefix '{prefix}'" in output
    assert (tmp_path / "out" / EVIDENCE_FILE).read_bytes() == (causal[0] / EVIDENCE_FILE).read_bytes()


def lora(bench: Path, folder: Path, base: str | None) -> Path:
    """The adapter, which names another base model or none."""
    shutil.copytree(bench / "lora", folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))
    return folder


@pytest.mark.parametrize("role", ["suspect", "reference"])
def test_an_adapter_is_read_over_its_base_in_every_place_and_both_are_on_record(
    role: str, bench: Path, tmp_path: Path
) -> None:
    adapter = lora(bench, tmp_path / "lora", "somebody/base")
    given: dict[str, tuple[Path, list[object]]] = {
        "suspect": (adapter, ["--reference", bench / "causal"]),
        "reference": (bench / "causal", ["--reference", adapter]),
    }
    student, more = given[role]
    status, output = trace(bench, tmp_path / "out", str(student), *more)
    assert status == 2 and "'somebody/base' is no folder here" in output and "--base" in output
    status, output = trace(bench, tmp_path / "out", str(student), *more, "--base", bench / "other")
    assert status == 0 and f"{adapter} is an adapter" in output
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    seen = {
        "suspect": [record["student"]],
        "reference": [one["model"] for one in record["references"]],
    }
    assert record["arguments"]["base"] == str(bench / "other")
    for model in seen[role]:
        assert (model["base"], model["form"]) == (str(bench / "other"), "LORA adapter")
        assert model["base_sha256"] == model_hash(bench / "other")
        assert model["sha256"] == model_hash(adapter, bench / "other") != model_hash(adapter, bench / "causal")
        page = (tmp_path / "out" / "report.html").read_text()
        assert str(bench / "other") in page and model["base_sha256"] in page


def test_an_adapter_is_read_as_the_merged_model_and_named_base_needs_no_option(bench: Path, tmp_path: Path) -> None:
    for name in ("lora", "merged"):
        assert trace(bench, tmp_path / name, name, "--readout", "argmax")[0] == 0
    with np.load(tmp_path / "lora" / EVIDENCE_FILE) as one, np.load(tmp_path / "merged" / EVIDENCE_FILE) as other:
        assert all((one[part] == other[part]).all() for part in one.files)
    status, output = trace(bench, tmp_path / "out", "causal", "--base", bench / "other")
    assert status == 2 and "--base has no effect" in output


def test_a_gguf_suspect_is_read_beside_the_owners_tokenizer(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    shutil.copy(bench / "gguf.gguf", tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    status, output = trace(bench, tmp_path / "out", str(tmp_path / "m" / "gguf.gguf"), "--reference", bench / "causal")
    assert status == 0 and "No mark was found" in output
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (record["student"]["form"], record["student"]["tokenizer"]) == ("GGUF (Q8_0 and F32)", "same")


def test_a_causal_model_is_read_and_innocent(causal: tuple[Path, str]) -> None:
    assert (causal[0] / "report.json").exists() and "No mark was found" in causal[1]
