"""A self-test of a model before anything is read: that it predicts each token from earlier tokens alone.

The tests are valid for any model whose predictions at a place depend on nothing after it. A model whose attention looks
ahead sees the very token that the key chose, and an innocent one is found by it. So before a verdict rests on a model,
it reads short sequences of random tokens: in pairs that differ late only, with other sequences beside them, padded, and
along the branches of a tree. Predictions are compared as log-probabilities; a difference is told in parts of the
*scale*, what other last tokens change in the predictions after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detect.models.branches import Tree, cannot_branch, forward_inputs
from detect.models.network import logits_at, logits_width, most_positions
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    import torch

__all__ = ["check_branches", "check_sound", "unfit"]

I64 = npt.NDArray[np.int64]

LENGTH = 32
"""Tokens of a sequence; fewer where the model reads fewer."""
EXACT = 1e-4
"""Of the scale, that may change where the same kernels do the same sums: in a dense causal model nothing does, and a
random two-layer one that looks ahead changes by ten times as much. What other rows of the batch change is rounding
(experts get other numbers of tokens), and `ROUNDINGS` times that is let pass as well, up to `MOST`."""
ROUNDINGS = 10
MOST = 0.5
CLOSE = {"bfloat16": 0.15, "float16": 0.05, "float32": 1e-3}
"""Of the scale, that may change where other kernels do the sums in another order, by number type: about five times what
models of 135 and 270 million parameters show. Predictions at a wrong place are about a whole scale away."""
_LEAST = 8  # tokens in which anything can be seen
_TEXTS = (
    "The river ran past the old mill and under the bridge, where children used to fish in summer. In the evening "
    "people came down from the town to walk along the bank, and they talked about the weather and the price of bread.",
    "\u6cb3\u6c34\u6d41\u8fc7\u8001\u78e8\u574a\uff0c\u4ece\u6865\u4e0b\u7a7f\u8fc7\u3002\u508d\u665a"
    "\u4eba\u4eec\u4ece\u9547\u4e0a\u4e0b\u6765\uff0c\u6cbf\u7740\u6cb3\u5cb8\u6563\u6b65\u3002",
    "def add(first, second):\n    # the sum of two numbers\n    return first + second\n\n\nprint(add(1, 2))\n",
)
_POOR, _UNAWARE = 0.7, 0.15  # of what a mere guess has, for `unfit`


def check_sound(network: Any, name: str, vocabulary: int) -> None:
    """Refuse a model that doesn't predict each token from earlier tokens alone, or that predicts no numbers.

    It costs four forward passes over three sequences of `LENGTH` tokens.

    Parameters
    ----------
    network
        A transformers causal language model, in evaluation mode.
    name
        What people call it: its folder.
    vocabulary
        How many tokens its tokenizer (or the spec's, if that is its own) has; logits beyond belong to no token.

    Raises
    ------
    DyetraceError
        Predictions depend on later tokens, on how many there are, on other sequences of a batch or on padding; logits
        are asked for at some places and come from others; they are NaN or infinite; the forward pass fails.
    """
    import torch

    vocabulary = min(vocabulary, logits_width(network))
    length = min(LENGTH, most_positions(network) or LENGTH)
    if length < _LEAST:
        raise DyetraceError(f"{name} reads {length} tokens at a time; too few to tell anything of it")
    late, short = 2 * length // 3, length // 2
    one, other, *more = _sequences(network, vocabulary, 4, length)
    changed = np.concatenate([one[:late], other[late:]])
    mask = np.ones((3, length), dtype=np.int64)
    mask[2, short:] = 0
    padded = np.where(mask[2], one, 0)
    with torch.inference_mode():
        whole = torch.arange(length)
        logs = _logs(network, name, np.stack([one, changed, padded]), mask, whole, vocabulary)
        beside = _logs(network, name, np.stack([one, *more]), mask, whole, vocabulary)
        cut = np.stack([one, changed, padded])[:, :short]
        before = _logs(network, name, cut, np.ones_like(cut), whole[:short], vocabulary)
        some = torch.arange(1, length, 3)
        kept = _logs(network, name, np.stack([one, changed, padded]), mask, some, vocabulary)
    scale = float(_apart(logs[0, late:], logs[1, late:]).median())
    noise = float(_apart(logs[0], beside[0]).max())
    if noise > MOST * scale:
        raise DyetraceError(f"{name} can't be read: its predictions depend on other sequences of the same batch")
    exact = min(MOST * scale, EXACT * scale + ROUNDINGS * noise)
    if float(_apart(logs[0, :late], logs[1, :late]).max()) > exact:
        raise DyetraceError(
            f"{name} can't be read: its predictions depend on later tokens, so it would be found whatever it was "
            "trained on; its attention is not causal (config.json may say so: is_causal, is_decoder, "
            "use_bidirectional_attention)"
        )
    if float(_apart(logs[0, :short], logs[2, :short]).max()) > exact:
        raise DyetraceError(f"{name} can't be read: its predictions depend on padding after the text")
    if float(_apart(logs[0, :short], before[0]).median()) > _close(network) * scale:
        raise DyetraceError(f"{name} can't be read: its predictions depend on how much text follows")
    if float(_apart(logs[:2, some], kept[:2]).median()) > _close(network) * scale:
        raise DyetraceError(f"{name} can't be read: asked for predictions at some places, it gives those of others")


def unfit(network: Any, name: str, tokenizer: Any) -> str | None:
    """A line for a model that predicts plain text no better than a guess and is sure of it all the same; else None.

    So a model looks whose tokenizer, configuration or weights are another one's. What it reads then shows nothing of
    what it learnt. A model that was never trained is as bad a guesser, but knows it.

    Parameters
    ----------
    network, name
        As for `check_sound`, which it has passed.
    tokenizer
        A transformers tokenizer, the model's own.
    """
    import torch

    guess = float(np.log(min(logits_width(network), len(tokenizer))))
    best: tuple[float, float] | None = None
    for text in _TEXTS:
        try:
            ids = list(tokenizer(text)["input_ids"])[: most_positions(network)]
            told = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
            if len(ids) < _LEAST or not text.startswith(told[: len(text) // 2]):
                continue
            inputs = {"input_ids": torch.tensor([ids], device=network.device)}
            with torch.inference_mode():
                logits = logits_at(network, inputs, torch.arange(len(ids) - 1))[0]
            logs = logits.float().cpu().log_softmax(-1)
        except Exception:  # a tokenizer of something else than text; reading says so where that matters
            continue
        if max(ids) >= logs.shape[-1]:
            continue
        lost = float(-logs.gather(1, torch.tensor(ids[1:])[:, None]).mean())
        expected = float(-(logs.exp() * logs.nan_to_num(neginf=0.0)).sum(-1).mean())
        best = min(best or (lost, expected), (lost, expected))
    if best is None or best[0] < _POOR * guess or best[0] - best[1] < _UNAWARE * guess:
        return None
    return (
        f"{name} predicts plain text hardly better than a guess ({best[0]:.1f} nats a token, a guess has {guess:.1f}), "
        f"where it expects {best[1]:.1f}: its tokenizer, config.json or weights may be another model's, and then "
        "nothing of what it learnt is seen"
    )


def check_branches(network: Any, vocabulary: int) -> None:
    """Refuse a model that can't look along one branch of a text alone.

    Parameters
    ----------
    network
        As for `check_sound`.
    vocabulary
        How many tokens its own tokenizer has.

    Raises
    ------
    DyetraceError
        Its predictions after a branch are not those after the same tokens in a plain sequence.
    """
    import torch

    vocabulary = min(vocabulary, logits_width(network))
    length = min(LENGTH, most_positions(network) or LENGTH)
    trunk, *twigs = _sequences(network, vocabulary, 4, length)
    starts = np.linspace(length // 4, length - 4, 3).astype(int).tolist()
    plain = [np.concatenate([trunk[:start], twig[:3]]) for start, twig in zip(starts, twigs, strict=True)]
    # The trunk goes on after the twigs have branched off, and stands before them in the row that is read.
    tree = Tree()
    ends = [tree.follow(-1, sequence.tolist()) for sequence in (trunk, *plain)]
    try:
        with torch.inference_mode():
            reading = tree.aligned(list(enumerate(ends)))
            inputs, rows = forward_inputs([reading], network), torch.from_numpy(reading.rows)
            read = logits_at(network, inputs, rows)[0, :, :vocabulary].float().log_softmax(-1)
            alone = torch.cat([_after(network, sequence, vocabulary) for sequence in (trunk, *plain)])
    except DyetraceError as error:
        if "another tokenizer" in str(error):
            raise
        raise DyetraceError(cannot_branch(network, "it takes no mask of what each token may look at")) from error
    scale = float(_apart(alone, alone.roll(1, 0)).median())
    if not bool((_apart(read, alone) <= _close(network) * scale).all()):
        raise DyetraceError(cannot_branch(network, "it looks beyond the tokens that it is told to look at"))


def _close(network: Any) -> float:
    return CLOSE.get(str(network.dtype).removeprefix("torch."), CLOSE["bfloat16"])


def _after(network: Any, sequence: I64, vocabulary: int) -> torch.Tensor:
    """Log-probabilities after a plain sequence, shape (1, vocabulary)."""
    import torch

    inputs = {"input_ids": torch.from_numpy(sequence)[None].to(network.device)}
    last = torch.tensor([len(sequence) - 1])
    return logits_at(network, inputs, last)[0, :, :vocabulary].float().log_softmax(-1)


def _sequences(network: Any, vocabulary: int, count: int, length: int) -> I64:
    """Random ids of ordinary tokens, the same in every run: shape (count, length)."""
    from itertools import chain

    config = network.config.to_dict()
    nested = [value for value in config.values() if isinstance(value, dict)]
    special = {
        number
        for key, value in chain.from_iterable(one.items() for one in (config, *nested))
        if str(key).endswith(("token_id", "token_ids", "token_index"))
        for number in (value if isinstance(value, list) else [value])
    }
    embedded = getattr(network.get_input_embeddings(), "weight", None)
    known = min(vocabulary, vocabulary if embedded is None else int(embedded.shape[0]))
    ordinary = np.array([token for token in range(known) if token not in special], dtype=np.int64)
    return np.random.default_rng(0).choice(ordinary, (count, length))


def _logs(network: Any, name: str, ids: I64, mask: I64, keep: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Log-probabilities (b, k, vocabulary) after some places of each row; padded places are not looked at."""
    import torch

    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    logits = logits_at(network, {key: value.to(network.device) for key, value in inputs.items()}, keep)
    logs = logits[..., :vocabulary].float().cpu().log_softmax(-1)
    if not bool(logs[torch.from_numpy(mask)[:, keep] > 0].isfinite().all()):
        held = [parameter for parameter, values in network.named_parameters() if not bool(values.isfinite().all())]
        more = ", ..." if len(held) > 3 else ""
        why = f"its weights hold NaN or infinity ({', '.join(held[:3])}{more})" if held else "they overflow"
        raise DyetraceError(
            f"{name} predicts NaN or infinite log-probabilities: {why}; get it again, or use another number type "
            "(--dtype, of the commands that have it)"
        )
    return logs


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Root mean square over the vocabulary of the differences of log-probabilities: (..., V) -> (...)."""
    return (one - other).square().mean(-1).sqrt()
