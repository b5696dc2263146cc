"""Where the texts of an answer stand in the tokens that an endpoint gives log-probabilities of.

Those tokens spell more than the text where reasoning and its marks stand among them, other tokens that servers leave
out of texts, or a blank that the server took away; and less where a server leaves out tokens within a character. What
is decided here rests on text and tokens alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice

from detect.student.asking.message_texts import Said
from detect.student.asking.positions import Position

Places = Mapping[int, int]
"""Byte of a text at which one of the suspect's tokens begins -> which one."""

_MOST_BYTES, _MOST_TOKENS = 16, 4  # that may be missing, or spell no whole character, at one place
_MOST_STARTS = 64
_MOST_MARKS = 2
_CUT = "\ufffd"
_CUT_BYTES = _CUT.encode()
_MARK = re.compile(rb"<[^<>\s]{1,80}>|\[[A-Z_/]{2,40}\]")
"""Tokens that mean something to the model and stand in no text: <|im_start|>, </s>, [INST]."""


def places_of(texts: Sequence[Said], tokens: Sequence[Position]) -> list[Places | None]:
    """Where tokens of an answer begin in each of its texts; None for a text that they don't spell, none in a blank one.

    White space around a text, and a character that is cut off at its end, may be missing on either side. A token whose
    alternatives belong to another place is left out: so is the end of a character, for which servers show the whole.
    A text of which that leaves nothing has no places.

    Parameters
    ----------
    texts
        In the order in which they were written.
    tokens
        Of the whole answer.
    """
    raws = [position.chosen.raw for position in tokens]
    spelled = b"".join(raws)
    starts = [0, *accumulate(map(len, raws))]
    found: list[Places | None] = []
    after = 0
    for place, said in enumerate(texts):
        core = said.text.strip().rstrip(_CUT).rstrip()
        lead = len(said.text[: len(said.text) - len(said.text.lstrip())].encode())
        needle = core.encode()
        last = place == len(texts) - 1
        if not needle:
            found.append({})
            continue
        own, after = _placed(needle, raws, spelled, starts, after, last=last, alone=len(texts) == 1)
        found.append({lead + byte: i for byte, i in own.items() if _is_there(tokens, i)} if own else None)
    return found


def _placed(
    needle: bytes, raws: Sequence[bytes], spelled: bytes, starts: Sequence[int], after: int, *, last: bool, alone: bool
) -> tuple[dict[int, int], int]:
    """Where tokens begin in a text, none where they don't spell it; with the byte behind it."""
    at = _find(spelled, needle, after, last=last, alone=alone)
    if at >= 0:
        inside = range(bisect_left(starts, at), bisect_left(starts, at + len(needle)))
        return {starts[i] - at: i for i in inside if raws[i]}, at + len(needle)
    if alone and (shown := _shown_before(needle, raws)):
        new = {shown + start: i for i, start in enumerate(starts[:-1]) if raws[i]}
        return {byte: i for byte, i in new.items() if byte < len(needle)}, after
    own, end = _with_gaps(needle, raws, bisect_left(starts, after), last=last)
    return (own, starts[end]) if own else ({}, after)


def _shown_before(needle: bytes, raws: Sequence[bytes]) -> int:
    """Bytes of a text that no token spells, where a server repeats what it went on from; 0 where all else is no end."""
    for count in range(len(raws), max(0, len(raws) - _MOST_MARKS - 1), -1):  # marks of the end may follow
        new = b"".join(raws[:count])
        if new.strip() and needle.endswith(new.rstrip()):
            return len(needle) - len(new.rstrip())
    return 0


def _find(spelled: bytes, needle: bytes, after: int, *, last: bool, alone: bool) -> int:
    """Where a text stands: a lone one at the beginning, be it behind a blank, and else the last one at the end.

    Reasoning that a server hides stands before it.
    """
    if alone and spelled.lstrip().startswith(needle):
        return len(spelled) - len(spelled.lstrip())
    at = spelled.rfind(needle, after) if last else spelled.find(needle, after)
    return at if at >= 0 else spelled.find(needle)


def _is_there(tokens: Sequence[Position], place: int) -> bool:
    """Whether a token and its alternatives begin at one place.

    llama.cpp's server shows a whole character with the alternatives to its last byte, and other servers show nothing
    for what comes before.
    """
    position = tokens[place]
    if place and not tokens[place - 1].chosen.raw:
        return False
    number, raw = position.chosen.id, position.chosen.raw
    if any(other.id == number and other.raw != raw for other in position.top if number is not None):
        return False
    if not position.top or raw.isascii() or any(other.raw == raw for other in position.top):
        return True
    likeliest = max(position.top, key=lambda other: other.logprob)
    return _goes_on(likeliest.raw) == _goes_on(raw)


def _goes_on(raw: bytes) -> bool:
    """Whether bytes begin within a character."""
    return b"\x80" <= raw[:1] < b"\xc0"


def _with_gaps(needle: bytes, raws: Sequence[bytes], after: int, *, last: bool) -> tuple[dict[int, int], int]:
    """As above where bytes of characters are missing, or marks stand in between; with the token behind the text."""
    if needle.isascii() and not any(_CUT_BYTES in raw or _MARK.fullmatch(raw) for raw in raws):
        return {}, 0
    order = range(len(raws) - 1, after - 1, -1) if last else range(after, len(raws))
    begins = (i for i in order if raws[i].lstrip() and needle.startswith(raws[i].lstrip().partition(_CUT_BYTES)[0][:4]))
    for first in (*([after] if after < len(raws) else []), *islice(begins, _MOST_STARTS)):
        walked = _walk(needle, raws, first)
        if walked is not None:
            return walked
    return {}, 0


def _walk(needle: bytes, raws: Sequence[bytes], first: int) -> tuple[dict[int, int], int] | None:
    """Token after token along the text, over bytes that are no ASCII where they don't fit."""
    found: dict[int, int] = {}
    at, place = 0, first
    while at < len(needle) and place < len(raws):
        raw = raws[place]
        if fits := _fitting(needle, at, raw):
            found[at] = place
            at, place = at + fits, place + 1
        elif not at and (fits := _fitting(needle, at, raw.lstrip())):
            at, place = at + fits, place + 1
        elif not raw or _MARK.fullmatch(raw):
            place += 1
        elif (step := _over(needle, at, raws, place)) is not None:
            at, place = at + step[0], place + step[1]
        else:
            return None
    return (found, place) if all(byte >= 0x80 for byte in needle[at:]) else None


def _fitting(needle: bytes, at: int, raw: bytes) -> int:
    """How many bytes of a token stand there: all, those up to the text's end, or those before a character's bytes."""
    rest = needle[at : at + len(raw)]
    if raw.startswith(rest):
        return len(rest)
    plain = raw[: next((i for i, byte in enumerate(raw) if byte >= 0x80), 0)]
    return len(plain) if needle.startswith(plain, at) else 0


def _over(needle: bytes, at: int, raws: Sequence[bytes], place: int) -> tuple[int, int] | None:
    """The fewest bytes and tokens to pass over, so that they fit again; None where too many would be."""
    bytes_ = next((n for n in range(_MOST_BYTES) if needle[at + n : at + n + 1] < b"\x80"), _MOST_BYTES)
    tokens_ = next(
        (n for n in range(_MOST_TOKENS) if place + n >= len(raws) or any(byte < 0x80 for byte in raws[place + n])),
        _MOST_TOKENS,
    )
    steps = ((size, tokens) for size in range(bytes_ + 1) for tokens in range(tokens_ + 1) if size or tokens)
    for size, tokens in sorted(steps, key=sum):
        there = place + tokens
        if at + size >= len(needle) or (there < len(raws) and _fitting(needle, at + size, raws[there])):
            return size, tokens
    return None
