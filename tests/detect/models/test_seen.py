"""Models as records name them: hashes cover all that decides what is read, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.models.seen import model_hash, model_seen, template_hash
from tests.tiny_models import CAUSAL, made, saved, write_gguf
from watermark.errors import DyetraceError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(made(CAUSAL["llama"]), tmp_path_factory.mktemp("base") / "model")


def adapter(folder: Path, base: str) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_the_hash_of_an_adapter_covers_the_adapter_and_its_base(base: Path, tmp_path: Path) -> None:
    other = saved(made(CAUSAL["llama"], seed=1), tmp_path / "other")
    one = adapter(tmp_path / "a", str(base))
    seen = model_seen(one, "same")
    assert (seen.name, seen.base, seen.form) == (str(one), str(base), "LORA adapter")
    assert seen.base_sha256 == model_hash(base) != seen.sha256
    assert model_hash(one, other) != seen.sha256 == model_hash(one, base)
    (one / "adapter_model.safetensors").write_bytes(b"others")
    assert model_hash(one) != seen.sha256
    with pytest.raises(DyetraceError, match="no folder here"):
        model_hash(adapter(tmp_path / "b", "somebody/base"))
    # Beside whole weights the adapter's own files are no part of the base model.
    beside = saved(made(CAUSAL["llama"]), tmp_path / "beside")
    for file in one.iterdir():
        (beside / file.name).write_bytes(file.read_bytes())
    assert model_seen(beside, "same", beside).base_sha256 == model_hash(base)


def test_the_hash_of_a_gguf_file_is_the_same_by_file_and_by_folder(tmp_path: Path) -> None:
    file = write_gguf(made(CAUSAL["llama"]), tmp_path / "m.gguf", quantised=True)
    seen = model_seen(file, "aligned")
    assert seen.sha256 == model_hash(tmp_path) and (seen.base, seen.form) == (None, "GGUF (Q8_0 and F32)")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert model_hash(file) != seen.sha256
    assert template_hash(file) == template_hash(tmp_path)


def test_other_tokenizer_files_count_where_there_is_no_tokenizer_json(base: Path) -> None:
    before = model_hash(base)
    (base / "tokenizer.model").write_bytes(b"pieces")
    assert model_hash(base) == before
    own = (base / "tokenizer.json").read_bytes()
    (base / "tokenizer.json").unlink()
    without = model_hash(base)
    (base / "tokenizer.model").write_bytes(b"others")
    assert model_hash(base) != without
    (base / "tokenizer.json").write_bytes(own)
    (base / "tokenizer.model").unlink()


@pytest.mark.parametrize(
    ("told", "form"),
    [
        ({"quant_method": "fp8"}, "quantised (fp8)"),
        ({"load_in_4bit": True}, "quantised (bitsandbytes)"),
        ({"quant_method": "x\u202e\n" * 30}, "quantised (x"),
    ],
)
def test_a_quantised_model_says_so(told: dict[str, object], form: str, base: Path, tmp_path: Path) -> None:
    folder = saved(made(CAUSAL["llama"]), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": told}))
    found = model_seen(folder, "same").form
    assert found is not None and found.startswith(form) and found.isprintable()
