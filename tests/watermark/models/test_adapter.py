"""Adapters of peft over their base model: the very logits of peft's own forward pass, or one line that says why not."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import CAUSAL, made, saved
from watermark.errors import DyetraceError
from watermark.models.folder import load_model

LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
HEAD = "base_model.model.lm_head"
BOTH = {"modules_to_save": ["lm_head", "embed_tokens"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(made(CAUSAL["llama"]), tmp_path_factory.mktemp("base") / "model")


def adapter(base: Path, folder: Path, kind: str = "Lora", tokens: int | None = None, **fields: Any) -> Any:
    """Save a trained adapter; peft's own model."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if tokens is not None:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", **fields))
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        wrapped.eval().save_pretrained(folder)
    return wrapped


def refusal(folder: Path) -> str:
    with pytest.raises(DyetraceError) as caught:
        load_model(folder, "float32")
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Lora", LORA),
        ("Lora", {"r": 4, "target_modules": "all-linear", "use_rslora": True, "bias": "all"}),
        ("Lora", {**LORA, "use_dora": True}),
        ("Lora", {**LORA, **BOTH}),
        ("Lora", {"r": 4, "target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
        ("Lora", {**LORA, "trainable_token_indices": [5, 6]}),
        ("Lora", {**LORA, "tokens": 310}),
        ("Lora", {**LORA, **BOTH, "tokens": 310}),
        ("IA3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
        ("AdaLora", {"target_modules": ["q_proj"], "total_step": 10}),
        ("Vera", {"r": 4, "target_modules": ["q_proj"]}),
        ("AdaptionPrompt", {"adapter_len": 4, "adapter_layers": 1}),
    ],
)
def test_an_adapter_gives_the_very_logits_of_peft(
    kind: str, fields: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    import torch

    own = adapter(base, tmp_path / "a", kind, **fields)
    said: list[str] = []
    network, _ = load_model(tmp_path / "a", "float32", said.append)
    ids = torch.arange(3, 63).reshape(2, 30)
    with torch.inference_mode():
        assert torch.equal(network(input_ids=ids).logits, own(input_ids=ids).logits)
        assert not torch.equal(network(input_ids=ids).logits, load_model(base, "float32")[0](input_ids=ids).logits)
    assert any(str(base) in line and "adapter" in line for line in said) and not network.training


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("PromptTuning", {"num_virtual_tokens": 4}, "tokens of its own before a text"),
        ("PrefixTuning", {"num_virtual_tokens": 4}, "tokens of its own before a text"),
        ("Lora", {**LORA, "alora_invocation_tokens": [7, 8]}, "more than layers"),
        ("Lora", {**LORA, "init_lora_weights": "pissa"}, "changes its base model as it is put on"),
    ],
)
def test_what_is_no_layer_of_the_model_is_refused(
    kind: str, fields: dict[str, Any], says: str, base: Path, tmp_path: Path
) -> None:
    adapter(base, tmp_path / "a", kind, **fields)
    assert says in refusal(tmp_path / "a")


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "a"
    adapter(base, folder, **LORA, modules_to_save=["lm_head"])
    return folder


Weights = dict[str, Any]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: {n: v for n, v in w.items() if "layers.1" not in n}, "4 missing"),
        (lambda w: {n: v for n, v in w.items() if "lm_head" not in n}, f"1 missing ({HEAD}.weight)"),
        (lambda w: w | {"base_model.model.model.layers.7.lora_A.weight": w[f"{HEAD}.weight"][:4]}, "1 left over"),
        (lambda w: {n.removeprefix("base_model.model."): v for n, v in w.items()}, "missing"),
        (lambda w: w | {f"{HEAD}.weight": w[f"{HEAD}.weight"][:200]}, "rows of all"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    spoil: Callable[[Weights], Weights], says: str, plain: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    weights = {name: value.clone() for name, value in spoil(load_file(file)).items()}
    save_file(weights, file, metadata={"format": "pt"})
    assert says in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"r": 8}, "size mismatch"),
        ({"target_modules": ["q_proj"]}, "4 left over"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "4 missing"),
        ({"target_modules": ["none"]}, "can't load"),
        ({"peft_type": "NEWLORA"}, "does not know"),
        ({"a_new_setting": "on"}, "a_new_setting"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    fields: dict[str, Any], says: str, plain: Path, tmp_path: Path
) -> None:
    shutil.copytree(plain, tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    assert says in refusal(tmp_path / "a")


def test_a_base_of_another_shape_is_refused_and_one_beside_is_put_under_the_adapter_once(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    import torch

    kind, fields = CAUSAL["llama"]
    wider = saved(made((kind, {**fields, "hidden_size": 64})), tmp_path / "wider")
    with pytest.raises(DyetraceError, match="size mismatch"):
        load_model(plain, "float32", base=wider)
    both = tmp_path / "both"
    shutil.copytree(base, both)
    shutil.copytree(plain, both, dirs_exist_ok=True)
    ids = torch.arange(3, 33)[None]
    with torch.inference_mode():
        once, beside = (
            load_model(folder, "float32", base=below)[0](input_ids=ids).logits
            for folder, below in ((plain, base), (both, both))
        )
    assert torch.equal(once, beside)


def test_two_files_of_one_adapter_that_differ_are_refused(plain: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(plain, tmp_path / "a")
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    torch.save(weights, tmp_path / "a" / "adapter_model.bin")
    load_model(tmp_path / "a", "float32")
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "a" / "adapter_model.bin")
    assert "they differ" in refusal(tmp_path / "a")
