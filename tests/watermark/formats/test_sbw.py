"""Greens against sbw 1.0.0's own functions, `tests/watermark/vectors/make_foreign_formats_hash.py` says how."""

from typing import Any

import numpy as np
import pytest

from tests.watermark.formats.hash_vectors import (
    DETECTIONS,
    FIRST_KEY,
    SECOND_KEY,
    cases,
    check,
    document,
    first_of_each,
    null_pvalues,
    windows,
)
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.formats.sbw import WIDTHS, Sbw

NOTHING: Any = None


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("sbw"))
def test_greens_are_sbws(case, key, width, parameters):
    check(Sbw(**parameters), "sbw", case, key, width)


@pytest.mark.parametrize("scheme", DETECTIONS["sbw"])
def test_the_count_of_a_text_is_that_of_sbws_detector(scheme):
    format_ = Sbw(next(seeding for seeding in WIDTHS if seeding in scheme))
    contexts, tokens = windows(document(), format_.context_width, first=format_.context_width)
    once = first_of_each(np.column_stack([contexts, tokens]))  # sbw tells n-grams apart, not what is hashed
    held = DETECTIONS["sbw"][scheme]
    assert len(once) == held["tokens"]
    assert int(format_.words((15485863,), contexts[once], tokens[once]).sum()) == held["greens"]


@pytest.mark.parametrize("seeding", WIDTHS)
def test_pvalues_of_unmarked_repetitive_text_are_not_too_small(seeding):
    # Shifted down, the text is half token 0, under which no key changes a seed of "simple_1".
    contexts, tokens = windows([token - 1 for token in document()], WIDTHS[seeding])
    pvalues = null_pvalues(Sbw(seeding, 0.25), contexts, tokens, keys=2000)
    assert np.count_nonzero(pvalues <= 1e-2) <= 38  # expected at most 20, sd 4.5
    assert np.count_nonzero(pvalues <= 1e-3) <= 10


@pytest.mark.parametrize("seeding", ["simple_1", "simple_4", "minhash", "skipgram"])
def test_what_no_key_changes_is_one_input_and_never_green(seeding):
    tokens = np.arange(100)
    contexts = np.zeros((100, WIDTHS[seeding]), np.int64)
    for seed in (FIRST_KEY, SECOND_KEY):
        key = Sbw().draw_key(seed)
        assert len(set(Sbw(seeding).inputs(key, contexts, tokens).tolist())) == 1
        assert not Sbw(seeding).words(key, contexts, tokens).any()


def test_contexts_of_one_sum_share_their_greens():
    contexts, tokens = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 5]]), np.full(3, 9)
    inputs = Sbw("simple_4").inputs((15485863,), contexts, tokens)
    assert inputs[0] == inputs[1] != inputs[2]


def test_it_is_a_format_only_read_and_not_called_exact():
    assert isinstance(Sbw(), Format)
    assert not Sbw.exact
    with pytest.raises(DyetraceError, match="read, not written"):
        Sbw().transform(NOTHING, NOTHING)
    with pytest.raises(DyetraceError) as raised:
        Sbw().parse_key("5ecret")
    assert "5ecret" not in str(raised.value)


@pytest.mark.parametrize("make", [lambda: Sbw("lefthash"), lambda: Sbw(gamma=0.0)])
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(DyetraceError):
        make()
