"""Context windows against plain lists of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from watermark.engines.transformers.context import next_contexts, seen_before  # noqa: E402
from watermark.prf import MISSING  # noqa: E402

PAD = 9
WIDTHS = st.integers(0, 5)


@st.composite
def batches(draw, tokens=(0, 1, 2)):
    """Left-padded prompts of 1 token and more and equally long answers: rows, padding, prompt length."""
    alphabet = st.sampled_from(tokens)
    prompts = draw(st.lists(st.lists(alphabet, min_size=1, max_size=7), min_size=1, max_size=4))
    length = max(map(len, prompts)) + draw(st.integers(0, 2))
    count = draw(st.integers(0, 14))
    answers = [draw(st.lists(alphabet, min_size=count, max_size=count)) for _ in prompts]
    padding = [length - len(prompt) for prompt in prompts]
    rows = [[PAD] * length_ + p + a for length_, p, a in zip(padding, prompts, answers, strict=True)]
    return rows, padding, length


def context_at(row: list[int], padding: int, position: int, width: int) -> list[int]:
    """The ``width`` tokens before a position, where padding does not count."""
    before = row[padding:position]
    return ([MISSING] * width + before)[len(before) :] if width else []


def next_of(rows, padding, width):
    return next_contexts(torch.tensor(rows), torch.tensor(padding), width)


@given(batches(), WIDTHS)
def test_next_contexts_are_the_last_tokens_without_the_padding(batch, width):
    rows, padding, _ = batch
    contexts = next_of(rows, padding, width)
    assert contexts.shape == (len(rows), width)
    assert contexts.dtype == torch.int64
    expected = [context_at(row, pad, len(row), width) for row, pad in zip(rows, padding, strict=True)]
    assert contexts.tolist() == expected


def test_a_prompt_shorter_than_the_context_begins_with_missing_tokens():
    assert next_of([[PAD, PAD, 4], [5, 6, 7]], [2, 0], 5).tolist() == [
        [MISSING, MISSING, MISSING, MISSING, 4],
        [MISSING, MISSING, 5, 6, 7],
    ]
    assert next_of([[PAD, PAD, 4]], [2], 2).tolist() == [[MISSING, 4]]
    assert next_of([[1, 2]], [0], 0).tolist() == [[]]


def test_padding_that_is_a_real_token_elsewhere_is_told_apart_by_its_place():
    assert next_of([[4, 4, 4], [4, 4, 4]], [2, 0], 3).tolist() == [[MISSING, MISSING, 4], [4, 4, 4]]


def chose_before(row, padding, prompt_length, width) -> bool:
    """Whether the next context is one that an earlier generated token had."""
    following = context_at(row, padding, len(row), width)
    return any(context_at(row, padding, t, width) == following for t in range(prompt_length, len(row)))


@given(batches(), st.integers(1, 5))
def test_seen_before_is_a_repeat_among_the_generated_tokens_contexts(batch, width):
    rows, padding, prompt_length = batch
    seen = seen_before(torch.tensor(rows), next_of(rows, padding, width), prompt_length)
    assert seen.dtype == torch.bool
    assert seen.tolist() == [
        chose_before(row, pad, prompt_length, width) for row, pad in zip(rows, padding, strict=True)
    ]


@given(batches((0, PAD)), st.integers(1, 5))
def test_where_the_padding_token_is_generated_too_no_repeat_is_missed(batch, width):
    rows, padding, prompt_length = batch
    seen = seen_before(torch.tensor(rows), next_of(rows, padding, width), prompt_length).tolist()
    for row, pad, ours in zip(rows, padding, seen, strict=True):
        exact = chose_before(row, pad, prompt_length, width)
        assert ours == exact if prompt_length - pad >= width else ours >= exact


def test_a_context_of_the_prompt_alone_does_not_count():
    ids = torch.tensor([[1, 2, 3, 1, 2]])
    contexts = next_of(ids.tolist(), [0], 2)
    assert not seen_before(ids, contexts, 5).any()  # (1, 2) stood in the prompt, and chose nothing
    assert not seen_before(ids, contexts, 3).any()  # the first generated token had (2, 3)
    assert seen_before(ids, contexts, 2).all()  # here (1, 2) chose the 3
