"""Model folders as people have them: the very weights that were trained, or one line that says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import AROUND_TEXT, CAUSAL, around_text, made, saved, tokenizer
from watermark.errors import DyetraceError, MachineError
from watermark.models.folder import DEVICES, find_device, load_model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, its head not tied."""
    return saved(made(CAUSAL["llama"]), tmp_path_factory.mktemp("plain") / "model")


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def copy(folder: Path, target: Path, weights: dict[str, Any], form: str = "safetensors") -> Path:
    """The same folder with other weights."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(folder, target)
    (target / "model.safetensors").unlink()
    if form == "safetensors":
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(weights, target / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    return target


def change(folder: Path, target: Path, **fields: Any) -> Path:
    """The same folder with other fields in config.json."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | fields))
    return target


def refusal(folder: Path) -> str:
    with pytest.raises(DyetraceError) as caught:
        load_model(folder, "float32")
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def assert_same(one: Any, other: Any) -> None:
    import torch

    mine, yours = one.state_dict(), other.state_dict()
    assert mine.keys() == yours.keys()
    assert all(torch.equal(mine[name], yours[name]) for name in mine)


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "20KB"}])
@pytest.mark.parametrize("family", CAUSAL)
def test_what_save_pretrained_wrote_is_read_as_it_was(family: str, how: dict[str, str], tmp_path: Path) -> None:
    model = made(CAUSAL[family])
    found, _ = load_model(saved(model, tmp_path / "model", **how), "float32")
    assert_same(found, model)
    assert not found.training


@pytest.mark.parametrize("form", ["safetensors", "bin", "old bin"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_taken_off_and_said(prefix: str, form: str, plain: Path, tmp_path: Path) -> None:
    wrapped = copy(plain, tmp_path / "m", {prefix + name: value for name, value in tensors(plain).items()}, form)
    said: list[str] = []
    model, _ = load_model(wrapped, "float32", said.append)
    assert_same(model, load_model(plain, "float32")[0])
    assert len(said) == 1 and f"'{prefix}'" in said[0] and str(wrapped) in said[0]


@pytest.mark.parametrize("family", ["llama, tied", "gpt2", "mixtral", "opt"])
def test_of_any_family(family: str, tmp_path: Path) -> None:
    whole = saved(made(CAUSAL[family]), tmp_path / "whole")
    wrapped = copy(whole, tmp_path / "m", {f"_orig_mod.{name}": value for name, value in tensors(whole).items()})
    assert_same(load_model(wrapped, "float32")[0], load_model(whole, "float32")[0])


def test_shards_under_a_prefix_are_read_as_well(plain: Path, tmp_path: Path) -> None:
    weights = tensors(plain)
    folder = copy(plain, tmp_path / "m", {})
    (folder / "model.safetensors").unlink()
    from safetensors.torch import save_file

    index = {}
    for number, (name, value) in enumerate(weights.items()):
        file = f"model-{number + 1:05d}-of-{len(weights):05d}.safetensors"
        save_file({f"_orig_mod.{name}": value}, folder / file, metadata={"format": "pt"})
        index[f"_orig_mod.{name}"] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert_same(load_model(folder, "float32")[0], load_model(plain, "float32")[0])


Weights = dict[str, Any]


def _some_wrapped(weights: Weights) -> Weights:
    return {("module." if "layers.1" in name else "") + name: value for name, value in weights.items()}


def _twice(weights: Weights) -> Weights:
    return {f"{prefix}{name}": value.clone() for name, value in weights.items() for prefix in ("module.", "_orig_mod.")}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: {f"wrapped.{n}": v for n, v in w.items()}, "21 missing (lm_head.weight"),
        (lambda w: {n: v for n, v in w.items() if "layers.1." not in n}, "9 missing (model.layers.1."),
        (lambda w: {n: v for n, v in w.items() if n != "lm_head.weight"}, "1 missing (lm_head.weight)"),
        (lambda w: w | {n.replace("layers.1", "layers.2"): v.clone() for n, v in w.items()}, "9 left over"),
        (lambda w: w | {"lm_head.weight": w["lm_head.weight"][:200].clone()}, "lm_head.weight is 200x32, not 300x32"),
        (_some_wrapped, "without the prefix 'module.'"),
        (_twice, "without the prefix"),
        (lambda w: w | {"model.layers.0.self_attn.q_proj.lora_A.weight": w["lm_head.weight"].clone()}, "merge"),
        (
            lambda w: (
                {f"base_model.model.{n}": v for n, v in w.items()}
                | {"base_model.model.lora_A": w["lm_head.weight"].clone()}
            ),
            "merge",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    spoil: Callable[[Weights], Weights], says: str, plain: Path, tmp_path: Path
) -> None:
    message = refusal(copy(plain, tmp_path / "m", spoil(tensors(plain))))
    assert says in message and "config.json asks for" in message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_hidden_layers": 1}, "9 left over (model.layers.1."),
        ({"num_hidden_layers": 3}, "9 missing (model.layers.2."),
        ({"vocab_size": 310}, "of another shape"),
        ({"quantization_config": {"quant_method": "foo4"}}, "quantised by 'foo4'"),
        ({"quantization_config": {"bits": 4}}, "quantised by None"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "can't load a language model"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}, "code"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "modeling.Config"}}, "trace its endpoint"),
        ({"model_type": "own"}, "can't load a language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "an encoder with a decoder"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    fields: dict[str, Any], says: str, plain: Path, tmp_path: Path
) -> None:
    folder = change(plain, tmp_path / "m", **fields)
    (folder / "modeling.py").write_text("open('ran', 'w')\nraise SystemExit('code of the suspect ran')\n")
    assert says in refusal(folder)


def test_code_beside_weights_is_neither_run_nor_asked_about(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.chdir(tmp_path)
    folder = change(plain, tmp_path / "m", model_type="own", auto_map={"AutoConfig": "modeling.Config"})
    (folder / "modeling.py").write_text("open('ran', 'w')\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("open('ran', 'w')\n")
    refusal(folder)
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    assert_same(load_model(folder, "float32")[0], load_model(plain, "float32")[0])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("base", [True, False])
def test_an_adapter_is_to_be_merged_first(base: bool, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(plain, folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}')
    if not base:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    message = refusal(folder)
    assert "merge_and_unload" in message


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = saved(made(CAUSAL["llama"]), tmp_path / "model", max_shard_size="20KB")
    next(folder.glob("model-00002-*")).unlink()
    assert "model-00002" in refusal(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounding_and_nothing_else(dtype: str, plain: Path, tmp_path: Path) -> None:
    import torch

    half = {name: value.to(getattr(torch, dtype)) for name, value in tensors(plain).items()}
    model, _ = load_model(copy(plain, tmp_path / "m", half), "float32")
    whole, _ = load_model(plain, "float32")
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        difference = (model(input_ids=ids).logits - whole(input_ids=ids).logits).abs().max()
    assert 0 < difference < 0.01


def test_a_device_is_found_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [find_device(name) for name in ("auto", "cpu", "mps")] == ["cpu", "cpu", "mps"]
    with pytest.raises(MachineError, match="no cuda device on this machine; give --device cpu"):
        find_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == find_device("cuda") == "cuda"
    with pytest.raises(DyetraceError, match=f"must be one of {', '.join(DEVICES)}"):
        find_device("tpu")


def test_a_model_is_read_onto_the_device_that_is_asked_for(plain: Path) -> None:
    network, _ = load_model(plain, "float32", device="cpu")
    assert network.device.type == "cpu" and not hasattr(network, "hf_device_map")


@pytest.mark.parametrize("inside", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_what_wrappers_put_inside_names_is_taken_out_and_said(inside: str, plain: Path, tmp_path: Path) -> None:
    weights = {name.replace("layers.1.", f"layers.1.{inside}"): value for name, value in tensors(plain).items()}
    said: list[str] = []
    model, _ = load_model(copy(plain, tmp_path / "m", weights), "float32", said.append)
    assert_same(model, load_model(plain, "float32")[0])
    assert len(said) == 1 and f"'{inside}'" in said[0]


@pytest.mark.parametrize("name", AROUND_TEXT)
def test_the_text_model_inside_another_is_read_with_all_its_weights(name: str, tmp_path: Path) -> None:
    import torch

    model = around_text(name)
    found, _ = load_model(saved(model, tmp_path / "model"), "float32")
    assert_same(found, model)
    ids = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)
    file = tmp_path / "model" / "model.safetensors"
    weights = tensors(tmp_path / "model")
    for lacking in (
        next(n for n in weights if "vision" in n or "visual" in n),
        next(n for n in weights if "q_proj" in n),
    ):
        kept = {n: v for n, v in weights.items() if n != lacking}
        file.unlink()
        copy_into(file, kept)
        assert "1 missing" in refusal(tmp_path / "model")


def copy_into(file: Path, weights: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}, "an encoder with a decoder"),
        ({"architectures": ["CLIPModel"], "model_type": "clip"}, "does not know as a causal language model"),
    ],
)
def test_what_predicts_no_next_token_of_a_text_is_refused(
    fields: dict[str, Any], says: str, plain: Path, tmp_path: Path
) -> None:
    message = refusal(change(plain, tmp_path / "m", **fields))
    assert says in message and "trace its endpoint" in message


def test_names_that_somebody_else_wrote_are_shown_as_one_printable_line(plain: Path, tmp_path: Path) -> None:
    odd = "x\n\x1b[31m\u202e" + "y" * 500
    weights = tensors(plain)
    message = refusal(copy(plain, tmp_path / "m", weights | {odd: weights["lm_head.weight"].clone()}))
    assert message.isprintable() and len(message) < 1000 and "1 left over (x ?[31m?yyy" in message
    message = refusal(change(plain, tmp_path / "c", architectures=[odd], model_type="clip"))
    assert message.isprintable() and len(message) < 1000


def test_two_sets_of_weights_are_one_model_or_none(plain: Path, tmp_path: Path) -> None:
    import torch

    weights = tensors(plain)
    for number, form in enumerate((torch.float32, torch.bfloat16)):
        folder = tmp_path / f"{number}"
        shutil.copytree(plain, folder)
        torch.save({name: value.to(form) for name, value in weights.items()}, folder / "pytorch_model.bin")
        assert_same(load_model(folder, "float32")[0], load_model(plain, "float32")[0])
        changed = weights | {"lm_head.weight": weights["lm_head.weight"] + 0.5}
        torch.save(changed, folder / "pytorch_model.bin")
        message = refusal(folder)
        assert (
            "model.safetensors and pytorch_model.bin" in message and "1 of their parameters differ (lm_head" in message
        )
    folder = tmp_path / "shards"
    shutil.copytree(plain, folder)
    made(CAUSAL["llama"], seed=1).save_pretrained(folder, max_shard_size="20KB")
    copy_into(folder / "model.safetensors", weights)
    assert "two sets of weights" in refusal(folder)


def test_whole_numbers_in_the_place_of_fractions_are_refused(plain: Path, tmp_path: Path) -> None:
    import torch

    weights = {n: (v * 100).to(torch.int8) if "q_proj" in n else v for n, v in tensors(plain).items()}
    assert "whole numbers (model.layers.0.self_attn.q_proj" in refusal(copy(plain, tmp_path / "m", weights))


def _in_eight_bits(weights: Weights, scales: bool) -> Weights:
    import torch

    found: Weights = {}
    for name, value in weights.items():
        scale = (value.abs().max() / 448).reshape(1, 1)
        found[name] = (value / scale).to(torch.float8_e4m3fn) if "proj" in name else value
        if "proj" in name and scales:
            found[name.replace("weight", "weight_scale_inv")] = scale
    return found


def test_numbers_of_eight_bits_are_read_with_their_scales_or_refused(plain: Path, tmp_path: Path) -> None:
    import torch

    weights = tensors(plain)
    whole = change(plain, tmp_path / "c", quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]})
    found = load_model(copy(whole, tmp_path / "m", _in_eight_bits(weights, True)), "float32")[0].state_dict()
    for name, value in weights.items():
        assert torch.allclose(found[name], value, rtol=0.1, atol=0.01)
    for number, folder in enumerate((plain, whole)):
        message = refusal(copy(folder, tmp_path / f"{number}", _in_eight_bits(weights, False)))
        assert "eight bits (model.layers.0" in message and "without their scales" in message
    assert "left over" in refusal(copy(plain, tmp_path / "n", _in_eight_bits(weights, True)))


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "quanto", "aqlm"])
def test_a_quantised_model_whose_package_is_missing_says_which_and_what_else(
    method: str, plain: Path, tmp_path: Path
) -> None:
    told = {"quant_method": method, "bits": 4, "format": "pack-quantized", "config_groups": {}, "weights": "int8"}
    message = refusal(change(plain, tmp_path / "m", quantization_config=told))
    assert "can't load a language model" in message


def test_a_model_that_transformers_changes_as_it_loads_it_is_refused(tmp_path: Path) -> None:
    fields = CAUSAL["llama"][1]
    heads = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    model = made(("Youtu", {**fields, **heads, "num_key_value_heads": 2}))
    saved(model, tmp_path / "zero")
    assert_same(load_model(tmp_path / "zero", "float32")[0], model)
    model.model.embed_tokens.weight.data[0] = 1  # the padding's, which transformers 5.24 sets to zero as it loads
    saved(model, tmp_path / "one")
    try:
        found, _ = load_model(tmp_path / "one", "float32")
    except DyetraceError as error:
        assert "transformers changed 1 parameters" in str(error) and "embed_tokens" in str(error)
    else:
        assert_same(found, model)


def test_tied_weights_that_a_file_holds_apart_stay_apart(plain: Path, tmp_path: Path) -> None:
    weights = tensors(plain)
    found = load_model(change(plain, tmp_path / "m", tie_word_embeddings=True), "float32")[0].state_dict()
    assert all((found[name] == value).all() for name, value in weights.items())


@pytest.mark.parametrize(
    "told", [{"dyetrace_spec": "{}"}, {"keys": [1, 2], "ngram_len": 5}, {"greenlist_ratio": 0.5}, {"anything": 1}]
)
def test_a_watermarking_config_in_the_folder_is_left_out_and_said(
    told: dict[str, Any], plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(plain, folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 7, "temperature": 0.5, "do_sample": True, "watermarking_config": told})
    )
    said: list[str] = []
    model, _ = load_model(folder, "float32", said.append)
    assert_same(model, load_model(plain, "float32")[0])
    generation = model.generation_config
    assert (generation.eos_token_id, generation.temperature, generation.watermarking_config) == (7, 0.5, None)
    assert len(said) == 1 and "watermarking_config" in said[0]


def test_a_tokenizer_may_add_tokens_that_the_model_lacks_and_have_no_others(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "added"
    shutil.copytree(plain, folder)
    own = tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<image>", "<sound>"]})
    own.save_pretrained(folder)
    said: list[str] = []
    load_model(folder, "float32", said.append)
    assert len(said) == 1 and "adds 2 tokens" in said[0]
    file = folder / "tokenizer.json"
    parts = json.loads(file.read_text())
    parts["model"]["vocab"] |= {f"w{number}": number for number in range(302, 310)}
    file.write_text(json.dumps(parts))
    assert "has 310 tokens, and its model predicts 300" in refusal(folder)


def test_what_else_looks_like_weights_is_named_and_not_read(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "m")
    for name in ("consolidated.safetensors", "model-q4.gguf", "old.pth", "optimizer.pt", "training_args.bin"):
        (tmp_path / "m" / name).write_bytes(b"anything")
    (tmp_path / "m" / "lora").mkdir()
    (tmp_path / "m" / "lora" / "adapter_config.json").write_text("{}")
    said: list[str] = []
    network, _ = load_model(tmp_path / "m", "float32", said.append)
    assert_same(network, load_model(plain, "float32")[0])
    (line,) = said
    assert line.startswith(f"{tmp_path / 'm'} also holds consolidated.safetensors, model-q4.gguf, old.pth")
    assert "optimizer" not in line and "training_args" not in line
