"""What a path to a model holds is found by the names of its files, and what isn't one model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from watermark.errors import DyetraceError
from watermark.models.given import NoBaseError, find_model

WHOLE = ("config.json", "tokenizer.json", "model.safetensors")
ADAPTER = ("adapter_model.safetensors",)


def folder(place: Path, *names: str, base: object = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text("{}")
    if "adapter_config.json" in names:
        (place / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": None if base is None else str(base)})
        )
    return place


def test_a_whole_model_is_itself(tmp_path: Path) -> None:
    found = find_model(folder(tmp_path / "m", *WHOLE, "extra.gguf"))
    assert found.whole == found.path == found.tokenizer == tmp_path / "m"
    assert found.adapter is found.gguf is found.base is None


def test_an_adapter_is_read_over_the_base_that_is_named_or_that_it_names(tmp_path: Path) -> None:
    base, other = folder(tmp_path / "base", *WHOLE), folder(tmp_path / "other", *WHOLE)
    adapter = folder(tmp_path / "a", "adapter_config.json", *ADAPTER, "training_args.bin", base=base)
    assert find_model(adapter).whole == find_model(adapter).base == find_model(adapter).tokenizer == base
    assert find_model(adapter, other).whole == other and find_model(adapter).adapter == adapter
    folder(adapter, "tokenizer.json")
    assert find_model(adapter).tokenizer == adapter


@pytest.mark.parametrize("base", [None, "somebody/base", "/nowhere/at/all", "~nobody-here/base", "a\0b"])
def test_an_adapter_without_its_base_is_refused_with_the_ways_out(base: str | None, tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", "adapter_config.json", *ADAPTER, base=base)
    with pytest.raises(NoBaseError, match=r"merge_and_unload.*base_model_name_or_path") as caught:
        find_model(adapter)
    assert "\n" not in str(caught.value)


def test_whole_weights_beside_an_adapter_are_neither_taken_nor_left_in_silence(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", *WHOLE)
    both = folder(tmp_path / "m", *WHOLE, *ADAPTER, "adapter_config.json", base=base)
    with pytest.raises(NoBaseError, match=r"whole weights beside it.*merge.*a folder of their own"):
        find_model(both)
    assert find_model(both, both).whole == both
    (both / "adapter_config.json").unlink()
    with pytest.raises(DyetraceError, match=r"adapter_model.safetensors.*no adapter_config.json"):
        find_model(both)


def test_a_base_that_is_an_adapter_itself_is_refused(tmp_path: Path) -> None:
    first = folder(tmp_path / "first", "adapter_config.json", *ADAPTER, base=folder(tmp_path / "base", *WHOLE))
    with pytest.raises(DyetraceError, match="is an adapter itself"):
        find_model(folder(tmp_path / "second", "adapter_config.json", *ADAPTER, base=first))


def test_a_gguf_file_is_found_alone_or_in_its_folder(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", "model.Q4_K_M.gguf", "README.md")
    file = place / "model.Q4_K_M.gguf"
    assert find_model(place).gguf == find_model(file).gguf == find_model(file).tokenizer == file
    folder(place, "tokenizer.json", "config.json")
    assert find_model(file).tokenizer == find_model(place).tokenizer == place
    folder(place, "model.Q8_0.gguf")
    with pytest.raises(DyetraceError, match=r"2 GGUF files.*give the path"):
        find_model(place)
    with pytest.raises(DyetraceError, match="llama-gguf-split --merge"):
        find_model(folder(tmp_path / "s", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "no config.json"),
        (("config.json",), "no tokenizer.json"),
        (("config.json", "tokenizer.json"), "no weights"),
        (("config.json", "tokenizer.json", "training_args.bin", "optimizer.bin"), "no weights"),
        (("adapter_config.json",), "no weights of an adapter"),
    ],
)
def test_what_lacks_a_part_is_refused_by_the_part(names: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match=says):
        find_model(folder(tmp_path / "m", *names))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "tokenizer.model", "m.gguf", "adapter_model.bin"]
)
def test_pointers_of_git_lfs_are_named(name: str, tmp_path: Path) -> None:
    place = folder(tmp_path / "m", *WHOLE)
    (place / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")
    with pytest.raises(DyetraceError, match=rf"{name}.*git lfs pull"):
        find_model(place)


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {}}', '{"peft_type": 3}'])
def test_an_adapter_that_is_none_of_pefts_is_refused(text: str, tmp_path: Path) -> None:
    adapter = folder(tmp_path / "a", "adapter_config.json", *ADAPTER)
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(DyetraceError, match=r"none of peft's.*merge"):
        find_model(adapter)
