"""What a local model writes after prompts: a batch of token ids in, the ids of answers out.

All that decides on a word goes on record with the answer, and what a model's folder asks for beside is left: the
chances that the mark chose by can then be computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError
from watermark.models.given import shown

if TYPE_CHECKING:
    import torch

_PROBED = 32  # tokens of a prompt by which it is seen whether padding changes anything
_APART = 0.3  # of what another last token changes: rounding changes less, and a model that reads its padding more

# Of a model's own generation settings: those that are taken or asked for anew, and those that change no answer.
_OWN_SETTINGS = frozenset(
    "bos_token_id eos_token_id pad_token_id decoder_start_token_id min_p do_sample temperature top_k top_p max_length "
    "max_new_tokens num_return_sequences use_cache cache_implementation cache_config return_legacy_cache "
    "return_dict_in_generate output_scores output_logits output_attentions output_hidden_states "
    "remove_invalid_values transformers_version disable_compile compile_config prefill_chunk_size".split()
)


def check_writes(model: Any) -> None:
    """Raise DyetraceError for a model that only reads."""
    if getattr(model, "generation_config", None) is None or not callable(getattr(model, "generate", None)):
        raise DyetraceError(
            f"the model ({type(model).__name__}) has no way to write text in transformers (`generate`); use another one"
        )


def stop_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer, ascending: those that the model names, or else its tokenizer's end token.

    Raises
    ------
    DyetraceError
        What is named is no id of a token.
    """
    for named in (model.generation_config.eos_token_id, getattr(tokenizer, "eos_token_id", None)):
        found = named if isinstance(named, list | tuple) else [named]
        if any(token is not None and (isinstance(token, bool) or not isinstance(token, int)) for token in found):
            raise DyetraceError(
                f"the model's end token is no token id ({shown(named, 60)}); mend eos_token_id in its "
                "generation_config.json or config.json"
            )
        if ends := sorted({token for token in found if token is not None}):
            return tuple(ends)
    return ()


def passed_over(model: Any) -> dict[str, Any]:
    """What a model's generation_config.json asks for beside the settings of `Sampling`, and `write` leaves.

    Answers are drawn with nothing that isn't on record: penalties and forbidden words would change the chances that the
    mark chose by, beams would leave it nothing to choose.
    """
    check_writes(model)
    asked: dict[str, Any] = model.generation_config.to_diff_dict()
    return {name: value for name, value in asked.items() if name not in _OWN_SETTINGS and not name.startswith("_")}


def positions_of(config: Any) -> int | None:
    """How many tokens a model can read, by its configuration; None where that doesn't say."""

    def of(part: Any, name: str) -> Any:
        return part.get(name) if isinstance(part, dict) else getattr(part, name, None)

    for part in (config, of(config, "text_config")):  # of a model that reads more than text
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            found = of(part, name)
            if isinstance(found, int) and found > 0:
                return found
    return None


def check_tokens(encoded: Sequence[Sequence[int]], rows: int | None) -> None:
    """Raise DyetraceError for a prompt without any token, or with one that a model with so many tokens doesn't know."""
    for number, ids in enumerate(encoded, 1):
        if not ids:
            raise DyetraceError(
                f"prompt {number} has no tokens for this model's tokenizer; remove it, or ask it otherwise"
            )
        if rows is not None and max(ids) >= rows:
            raise DyetraceError(
                f"prompt {number} has token id {max(ids)}, and the model knows {rows} tokens: the tokenizer beside it "
                "is another model's, or has tokens that the model never learnt; give the one that belongs to it"
            )


def known_tokens(model: Any) -> int | None:
    """How many tokens a model can read."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return None if weight is None else int(weight.shape[0])


def padding_token(model: Any, tokenizer: Any) -> int:
    """A token that fills prompts up. No model reads it, so where none is named for this, any will do."""
    rows, named = known_tokens(model), model.generation_config
    ends = named.eos_token_id if isinstance(named.eos_token_id, list) else [named.eos_token_id]
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, named.pad_token_id, *ends):
        if isinstance(token, int) and 0 <= token and (rows is None or token < rows):
            return token
    return 0


def padded(encoded: Sequence[Sequence[int]], padding: int, device: Any) -> dict[str, torch.Tensor]:
    """A batch as models take it: ids (b, m) that are filled up on the left, and where they are prompts, not filling."""
    import torch

    longest = max(map(len, encoded))
    ids = [[padding] * (longest - len(some)) + list(some) for some in encoded]
    mask = [[0] * (longest - len(some)) + [1] * len(some) for some in encoded]
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long, device=device),
        "attention_mask": torch.tensor(mask, dtype=torch.long, device=device),
    }


def pads_well(model: Any, encoded: Sequence[Sequence[int]], padding: int) -> bool:
    """Whether a model says the same after a prompt that is filled up on the left as after the bare prompt.

    Some (RWKV) read what stands there, whatever the attention mask says. A prompt in a batch must be answered as it is
    alone, so they answer prompts of one length at a time.
    """
    ids = min((len(one), list(one)) for one in encoded)[1][-_PROBED:]
    other = [*ids[:-1], next(token for token in range(3) if token not in (ids[-1], padding))]
    try:
        bare, changed = _first_said(model, [ids, other], padding, 0)
        (filled,) = _first_said(model, [ids], padding, max(4, len(ids) // 2))
    except Exception:  # with padding it may fail in any way; without it answers are drawn, or it is said why not
        return False
    return bool((filled - bare).abs().max() <= _APART * (changed - bare).abs().max())


def _first_said(model: Any, prompts: Sequence[Sequence[int]], padding: int, more: int) -> list[torch.Tensor]:
    """Log-probabilities (V,) of what comes first after prompts of one length, behind ``more`` tokens of padding."""
    import torch

    inputs = padded(prompts, padding, model.device)
    inputs = {
        name: torch.nn.functional.pad(values, (more, 0), value=padding if name == "input_ids" else 0)
        for name, values in inputs.items()
    }
    with torch.inference_mode(), _own_settings(model, padding, ()):
        said = model.generate(
            **inputs, do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
        )
    return list(said.logits[0].float().log_softmax(-1).nan_to_num(neginf=-1e4))


@contextlib.contextmanager
def _own_settings(model: Any, padding: int, stops: Sequence[int]) -> Iterator[None]:
    """In this block `model.generate` has no settings of the model's folder."""
    from transformers import GenerationConfig

    before = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=before.bos_token_id, eos_token_id=list(stops) or None, pad_token_id=padding
    )
    try:
        yield
    finally:
        model.generation_config = before


def _numbers(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Logits (b, V) as they are, once they are seen to be numbers."""
    if not bool((scores < float("inf")).all()):
        raise DyetraceError(
            "the model predicts NaN or infinity: its weights hold such numbers, or overflow in this number type; get "
            "it again, or use another number type (dtype)"
        )
    return scores


def write(
    model: Any,
    rows: dict[str, torch.Tensor],
    *,
    padding: int,
    stops: Sequence[int],
    mark: Callable[[torch.Tensor, Sequence[int]], Any] = lambda mask, numbers: None,
    apart: bool = False,
    **settings: Any,
) -> list[list[int]]:
    """Draw an answer after each prompt of a batch.

    Parameters
    ----------
    model
        A transformers causal language model.
    rows
        `padded` prompts, shape (b, m).
    padding, stops
        Ids that fill rows up and that end answers (`padding_token`, `stop_tokens`).
    mark
        Of the attention mask and the numbers of some rows: what `model.generate` takes as its watermarking_config.
    apart
        Draw rows of different lengths apart from each other, without any padding.
    settings
        Of `model.generate`, which follows no others.

    Returns
    -------
    list
        The ids of b answers, the token that ended each included.

    Raises
    ------
    DyetraceError
        The model fails, or predicts no numbers.
    MachineError
        There is too little memory.
    """
    lengths = rows["attention_mask"].sum(-1).tolist()
    found: dict[int, list[int]] = {}
    for length in sorted(set(lengths)) if apart else [rows["input_ids"].shape[1]]:
        numbers = [number for number, one in enumerate(lengths) if one == length or not apart]
        some = {name: values[numbers, values.shape[1] - length :] for name, values in rows.items()}
        written = _written(model, some, padding, stops, mark(some["attention_mask"], numbers), settings)
        found |= zip(numbers, written, strict=True)
    return [found[number] for number in range(len(lengths))]


def _written(
    model: Any,
    rows: dict[str, torch.Tensor],
    padding: int,
    stops: Sequence[int],
    mark: Any,
    settings: dict[str, Any],
) -> list[list[int]]:
    import torch

    try:
        with torch.inference_mode(), _own_settings(model, padding, stops):
            output = model.generate(
                **rows, do_sample=True, logits_processor=[_numbers], watermarking_config=mark, **settings
            )
    except DyetraceError:
        raise
    except Exception as error:  # models raise what they like
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
            reason = "there is not enough memory for a batch; lower batch, samples or max_new_tokens"
            raise MachineError(reason) from None
        reason = " ".join(str(error).split())[:200]
        raise DyetraceError(f"the model can't answer: {type(error).__name__}: {reason}") from error
    ends = set(stops)
    return [_until_end(row, ends) for row in output[:, rows["input_ids"].shape[1] :].tolist()]


def _until_end(ids: list[int], stops: set[int]) -> list[int]:
    """Drop the padding after the first end token."""
    for place, token in enumerate(ids):
        if token in stops:
            return ids[: place + 1]
    return ids
