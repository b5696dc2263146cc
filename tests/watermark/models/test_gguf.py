"""GGUF files: the model that was written into one, or one line that says what of it would be passed over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import CAUSAL, made, tokenizer, write_gguf
from watermark.errors import DyetraceError
from watermark.models.folder import load_model
from watermark.models.gguf import number_formats
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint


@pytest.fixture(scope="module")
def model() -> Any:
    return made(CAUSAL["llama"])


def logits(network: Any) -> Any:
    import torch

    with torch.inference_mode():
        return network(input_ids=torch.arange(3, 33)[None]).logits


def test_a_gguf_file_is_the_model_that_was_written(model: Any, tmp_path: Path) -> None:
    import torch

    file = write_gguf(model, tmp_path / "m.gguf")
    assert number_formats(file) == "F32"
    for place in (file, tmp_path):
        network, own = load_model(place, "float32")
        assert torch.equal(logits(network), logits(model)) and not network.training
        assert tokenizer_fingerprint(own) == tokenizer_fingerprint(place) and len(own) == 300
    tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode("7 8").ids == [7, 8]  # the one that stands beside it, if there is one
    assert load_model(file, "float32")[1]("7 8")["input_ids"] == [7, 8]


def test_a_quantised_one_is_near_it_and_says_how_it_is_held(model: Any, tmp_path: Path) -> None:
    file = write_gguf(model, tmp_path / "m.gguf", quantised=True)
    assert number_formats(file) == "Q8_0 and F32"
    difference = (logits(load_model(file, "float32")[0]) - logits(model)).abs().max()
    assert 0 < difference < 0.01


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"spared": "rope_freqs.weight"}, "some were passed over"),
        ({"spared": "blk.0.attn_q_norm.weight"}, "some were passed over"),
        ({"llama__rope__scaling__type": "yarn"}, "scales positions (yarn)"),
    ],
)
def test_what_transformers_would_pass_over_is_refused(
    fields: dict[str, Any], says: str, model: Any, tmp_path: Path
) -> None:
    file = write_gguf(model, tmp_path / "m.gguf", **fields)
    with pytest.raises(DyetraceError, match="convert it to a folder") as caught:
        load_model(file, "float32")
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 3, 30, 9000])
def test_a_file_that_was_cut_off_is_refused(length: int, model: Any, tmp_path: Path) -> None:
    whole = write_gguf(model, tmp_path / "whole.gguf")
    (tmp_path / "cut").mkdir()
    cut = Path(shutil.copy(whole, tmp_path / "cut" / "m.gguf"))
    cut.write_bytes(whole.read_bytes()[:length])
    for read in (load_model, load_tokenizer, number_formats):
        with pytest.raises(DyetraceError, match=r"m\.gguf") as caught:
            read(cut)
        assert "\n" not in str(caught.value)
