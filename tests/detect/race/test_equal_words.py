"""Words that a suspect finds equally likely: which of them it "says" must not depend on the word that was served."""

from __future__ import annotations

import itertools
import json

from detect.race.replies import listed_prompt, prompt_shares


def said_and_shares(own: int) -> tuple[int, list[float]]:
    """What a reply of vLLM's form says where tokens 7 and 5 are equally likely, and ``own`` is the prompt's."""
    likely = {7: (-1.0, 1), 5: (-1.0, 2), 3: (-1.5, 3)}
    ranked = likely if own in likely else {own: (-4.0, 40), **likely}
    order = [own, *(token for token in likely if token != own)]
    place = {str(token): {"logprob": ranked[token][0], "rank": ranked[token][1]} for token in order}
    listed = listed_prompt(json.dumps({"choices": [{"prompt_logprobs": [None, place]}]}).encode())
    assert listed is not None
    shares, said = prompt_shares(listed[1], [3, 5, 7, 9], 3, 100)
    return said, shares.tolist()


def test_the_served_word_settles_no_tie() -> None:
    for one, other in itertools.pairwise([3, 5, 7, 9]):
        assert said_and_shares(one) == said_and_shares(other)
