"""How an answer was drawn stands with it; files without it stay what they were, and so does an answer's hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.models.reading import line_hash
from tests.tiny_models import CAUSAL, made, tokenizer
from watermark.errors import DyetraceError
from watermark.generate import (
    Answer,
    Sampling,
    SamplingUsed,
    encode_answers,
    generate_answers,
    is_answers,
)

OLD = (
    b'{"id":"0","prompt":"1 2","text":"3","prompt_token_ids":[1,2],"token_ids":[3],"spec_id":"dt1-x","tenant":"acme",'
    b'"subkey":1}\n'
)
OLD_HASH = hashlib.sha256(b'[[1,2],[3],"dt1-x","acme",1]').hexdigest()


@pytest.fixture(scope="module")
def model() -> Any:
    return made(CAUSAL["llama"])


def drawn(model: Any, **how: Any) -> Answer:
    words = tokenizer()
    words.pad_token = "0"
    (answer,) = generate_answers(model, words, ["1 2 3"], Sampling(max_new_tokens=3, seed=1, **how))
    return answer


def test_an_answer_says_how_it_was_drawn(model: Any) -> None:
    assert drawn(model, temperature=0.8, top_k=7, top_p=0.9).sampling == SamplingUsed(
        temperature=0.8, top_k=7, top_p=0.9
    )
    plain = drawn(model)
    assert plain.sampling == SamplingUsed()
    assert encode_answers([plain]).endswith(b'"sampling":{}}\n')


def test_what_a_models_folder_asks_for_beside_is_put_down_too(model: Any) -> None:
    model.generation_config.min_p = 0.05
    try:
        assert drawn(model).sampling == SamplingUsed(min_p=0.05)
    finally:
        model.generation_config.min_p = None


def test_a_file_of_an_earlier_version_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_bytes(OLD)
    assert is_answers(path)
    answer = msgspec.json.decode(OLD, type=Answer)
    assert answer.sampling is None and encode_answers([answer]) == OLD


def test_the_settings_are_no_part_of_an_answers_hash() -> None:
    old = msgspec.json.decode(OLD, type=Answer)
    new = msgspec.structs.replace(old, sampling=SamplingUsed(temperature=0.5))
    assert line_hash(new) == line_hash(old)
    assert line_hash(old) == OLD_HASH


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"temperature": 1e4}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": -1.0}],
)
def test_settings_that_no_sampler_has_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(DyetraceError, match=f"{name} must lie in"):
        SamplingUsed(**wrong)
    with pytest.raises(msgspec.ValidationError, match=f"{name} must lie in"):
        msgspec.json.decode(msgspec.json.encode(wrong), type=SamplingUsed)
