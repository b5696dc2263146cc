"""What a reply says of the candidates: the same whatever token was served after the cut, and sane whatever comes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.race.replies import (
    Listed,
    echo_shares,
    likeliest,
    likely,
    listed_prompt,
    own_of_prompt,
    prompt_shares,
    said_in,
    said_of,
    shares_of,
)
from detect.student.asking.answers import Choice, TokenLogprob, read_response

VOCABULARY = 40


@pytest.mark.parametrize(
    ("text", "finish", "column"),
    [
        (" lighthouse keeper", "length", 1),  # not " light", which it begins with too
        (" lightly", "length", 0),
        ("", "stop", 2),
        ("", "length", -1),
        (" dark", "length", -1),
        ("lighthouse", "length", 1),  # its blank was trimmed away
        (" ", "length", -1),
        ("\n", "stop", -1),
    ],
)
def test_the_longest_candidate_that_a_reply_begins_with_is_said(text: str, finish: str, column: int) -> None:
    assert said_of(text, finish, [" light", " lighthouse", None, ""]) == column


def test_of_candidates_of_one_text_the_likeliest_is_said() -> None:
    assert said_of("the", "length", [" the", "the"]) == 1
    assert said_of("the", "length", [" the", "  the"]) == 0


def test_a_replys_own_id_goes_before_its_text() -> None:
    choice = Choice(" a", None, "length", token_ids=(7,))
    assert said_in(choice, [5, 7], [" a", " b"], ids=True, begun="") == 1
    assert said_in(choice, [5, 7], [" a", " b"], ids=False, begun="") == 0
    assert said_in(choice, [5, 6], [" a", " b"], ids=True, begun="") == -1


def test_what_a_reply_repeats_is_taken_off_and_a_reply_that_lacks_it_says_nothing() -> None:
    repeated = Choice("Once upon a time", None, "length")
    assert said_in(repeated, [1, 2], [" a", " a time"], ids=False, begun="Once upon") == 1
    assert said_in(repeated, [1, 2], [" a", "Once"], ids=False, begun="Twice") == -1


def as_listed(q: np.ndarray, most: int, own: int) -> list[Listed]:
    """What a server lists at a place where ``own`` stands: its ``most`` likeliest tokens, and that one first."""
    order = np.argsort(-q, kind="stable")
    shown = [own, *(int(token) for token in order[:most] if token != own)]
    return [Listed(token, math.log(q[token]), "") for token in shown]


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_a_prompts_own_token_has_no_say_in_what_its_place_says(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(VOCABULARY, 0.3)) + 1e-9
    q /= q.sum()
    tokens = rng.permutation(VOCABULARY)[:12].tolist()
    found = [prompt_shares(as_listed(q, most, own), tokens, most, VOCABULARY) for own in range(VOCABULARY)]
    first = found[0]
    assert all(np.array_equal(shares, first[0]) and said == first[1] for shares, said in found)
    assert np.nansum(first[0]) <= 1 + 1e-9


@given(st.integers(0, 2**32))
def test_nor_has_it_where_tokens_are_as_likely_as_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(1, 4, VOCABULARY).astype(float)
    q /= q.sum()
    kept = [{one.id for one in likely(as_listed(q, 8, own), 8)} for own in range(VOCABULARY)]
    assert all(one == kept[0] for one in kept)


def test_candidates_that_are_not_listed_share_the_rest_and_have_at_most_the_least_listed() -> None:
    entries = [Listed(3, math.log(0.6), ""), Listed(4, math.log(0.1), ""), Listed(9, math.log(0.001), "")]
    shares, said = prompt_shares(entries, [3, 9, 8, -1], 3, VOCABULARY)
    assert shares[0] == pytest.approx(0.6) and said == 0
    assert shares[1] == shares[2] == pytest.approx(0.3 / (VOCABULARY - 2))
    assert math.isnan(shares[3])


def test_likely_next_tokens_are_found_by_their_text_or_their_id() -> None:
    top = [TokenLogprob(" lighthouse", b" lighthouse", 7, math.log(0.5)), TokenLogprob(" a", b" a", 8, math.log(0.2))]
    by_text = shares_of(top, [1, 2], [" light", " lighthouse"], VOCABULARY, ids=False)
    assert by_text[1] == pytest.approx(0.5) and by_text[0] < 0.2
    by_id = shares_of(top, [7, 2], [" light", " lighthouse"], VOCABULARY, ids=True)
    assert by_id[0] == pytest.approx(0.5) and by_id[1] < 0.2
    assert np.isnan(shares_of([], [1], [" a"], VOCABULARY, ids=False)).all()


def test_the_likeliest_word_is_a_candidate_or_none() -> None:
    assert likeliest(np.array([0.1, 0.6]), 0.6) == 1
    assert likeliest(np.array([0.1, 0.2]), 0.6) == -1
    assert likeliest(np.array([math.nan, math.nan]), 0.6) == -1


def test_an_echo_says_what_it_says_of_the_served_token_alone() -> None:
    shares = echo_shares(math.log(0.25), 5, [4, 5, 6])
    assert shares[1] == pytest.approx(0.25) and np.isnan(shares[[0, 2]]).all()
    assert np.isnan(echo_shares(math.log(0.25), 9, [4, 5, 6])).all()
    assert np.isnan(echo_shares(math.nan, 5, [4, 5, 6])).all()


def test_a_prompts_own_log_probabilities_are_read_by_ids_where_they_are_there() -> None:
    listed = [[], [Listed(2, -1.0, ""), Listed(3, -2.0, "")], [Listed(9, -0.5, "")]]
    assert own_of_prompt(None, listed, [1, 3, 4])[1] == -2.0
    assert math.isnan(own_of_prompt(None, listed, [1, 3, 4])[2])
    assert np.isnan(own_of_prompt(None, None, [1, 3])).all()


nested = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entry = st.dictionaries(
    st.integers(-5, 60).map(str) | st.text(max_size=4),
    st.fixed_dictionaries({}, optional={"logprob": nested, "rank": nested, "decoded_token": nested}) | nested,
    max_size=5,
)


@given(st.lists(entry | nested, max_size=4) | nested)
def test_whatever_an_endpoint_sends_gives_numbers_in_range_or_none(given_: object) -> None:
    payload = json.dumps({"choices": [{"text": "", "prompt_logprobs": given_}]}).encode("utf-8", "replace")
    for place in listed_prompt(payload) or []:
        shares, said = prompt_shares(place, [0, 1, 2], 5, VOCABULARY)
        assert np.isnan(shares).all() or ((shares >= 0) & (shares <= 1)).all()
        assert -1 <= said < 3
    read_response(payload, 1)
