"""What a suspect's endpoint offers a race readout, found out with a question that is nobody's.

No served answer and no prompt of the owner's is shown here: of the served answers' form only what stands around every
prompt, the chat template, is taken.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from detect.models.reading import ReadingDocument
from detect.race.evidence import F64
from detect.race.job import RUN, Via
from detect.race.plan import RACE_ASKS, WHOLE_ANSWERS, RaceAsking, RaceEndpointAsk, Shown
from detect.race.replies import likely, listed_prompt, own_of_prompt
from detect.student.asking.account import ClientSettings
from detect.student.asking.address import check_url
from detect.student.asking.answers import Choice, read_prompt, read_response
from detect.student.asking.credentials import ApiKey
from detect.student.asking.forms import Form, Question, question_of
from detect.student.asking.lookahead import AHEAD, looks_ahead
from detect.student.asking.probing import Prober, Trial
from detect.student.asking.reach import shown_host
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROMPT = "Count from one to ten in digits."
BEGUN = "Here you are, in digits and in order: 1, 2, 3, 4, 5, 6,"
"""Longer than the reply that is asked for, so that a server that repeats it is told from one that begins anew."""
_NEXT = "7"

LISTED = (20, 5)
"""Likely tokens that servers may list at a place: vLLM and OpenAI's chat 20, OpenAI's completions 5."""
POWER, LEAST = 0.75, 0.005
"""Of the bias: chosen on a pilot's student, where it needs 57 requests and a bare greedy word 95."""

_TOKENS = 8  # of a reply that is to show that a server goes on
_FORCED = 3  # words that a bias must be able to force
_FEWEST = 8  # tokens with letters of which ids are compared
_PREFILLS: tuple[Form, ...] = ("continue", "prefix", "last")


@dataclass(frozen=True, slots=True)
class RaceOffered:
    """What an endpoint offers.

    Attributes
    ----------
    asking
        The strongest of what was looked for, and how to ask for it.
    probed
        What was tried, and what came of it, a line each.
    """

    asking: RaceAsking
    probed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The nobody's question in the forms in which served answers can be shown.

    Attributes
    ----------
    rendered
        With what the owner's chat template puts around a prompt; None where that isn't on record.
    """

    rendered: str | None

    @classmethod
    def like(cls, document: ReadingDocument | None, tokenizer: Tokenizer) -> Sample:
        """The question in place of a served answer's prompt."""
        if document is None or not document.prompt or not len(document.told):
            return cls(None)
        told = tokenizer.decode(document.told.tolist(), skip_special_tokens=False)
        return cls(told.replace(document.prompt, PROMPT) + BEGUN if told.count(document.prompt) == 1 else None)

    @property
    def text(self) -> str:
        """Rendered where that is known, else plain."""
        return self.plain if self.rendered is None else self.rendered

    @property
    def plain(self) -> str:
        """The bare prompt, a line feed and the answer's beginning."""
        return f"{PROMPT}\n{BEGUN}"


@dataclass(frozen=True, slots=True)
class _Way:
    """How a begun answer is shown, whether the suspect's ids are the spec's, and whether replies have theirs."""

    form: Form
    shown: Shown
    ids: bool
    returned: bool = False
    repeats: bool = False

    @property
    def chat(self) -> bool:
        return self.form != "completions"


def offered(
    url: str,
    model: str,
    ask: RaceEndpointAsk | Literal["auto"],
    via: Via,
    sample: Sample,
    tokenizer: Tokenizer,
    *,
    key: ApiKey | None = None,
    settings: ClientSettings | None = None,
    left_out: Collection[str] = (),
) -> RaceOffered:
    """Try what is wanted, or all from the strongest access to the weakest, until something works.

    Parameters
    ----------
    url, model
        The endpoint's base address, and the suspect's name there.
    ask, via
        What is to be read, and how answers are to be shown; "auto" takes what is strongest.
    sample, tokenizer
        The question, and the spec's tokenizer.
    key, settings
        As for `detect.student.asking.asking.ask_all`.
    left_out
        Settings that are left out of all requests (`detect.student.asking.fields`); others are that the endpoint
        refuses by name.

    Raises
    ------
    DyetraceError
        The endpoint can't be reached or refuses the key, goes on with no begun answer, or doesn't offer what is wanted.
    """
    check_url(url)
    return asyncio.run(_Finder(url, sample, tokenizer, via).find(model, ask, key, settings, left_out))


class _Finder:
    def __init__(self, url: str, sample: Sample, tokenizer: Tokenizer, via: Via) -> None:
        self._url, self._sample, self._tokenizer, self._via = url, sample, tokenizer, via
        self._ids: list[int] = tokenizer.encode(sample.text, add_special_tokens=False).ids

    async def find(
        self,
        model: str,
        ask: RaceEndpointAsk | Literal["auto"],
        key: ApiKey | None,
        settings: ClientSettings | None,
        left_out: Collection[str],
    ) -> RaceOffered:
        most = len(self._sample.text.encode()) + 256
        beside = max(LISTED) + 2
        async with Prober(
            self._url, model, key, settings, tokens=most, alternatives=beside, left_out=left_out
        ) as prober:
            self._prober = prober
            wanted = [one for one in RACE_ASKS if ask in ("auto", one)]
            found = await self._whole(wanted)
            if found is None and (way := await self._way()) is None:
                raise DyetraceError(self._no_way())
            if found is None and way is not None:
                found = await self._one_token(wanted, way)
            probed = tuple(prober.probed)
        if found is None:
            raise DyetraceError(
                f"{shown_host(self._url)} doesn't offer --ask {ask} ({'; '.join(probed)}); give another --ask, or auto"
            )
        return RaceOffered(msgspec.structs.replace(found, left_out=prober.left_out), probed)

    def _no_way(self) -> str:
        tried = "; ".join(self._prober.probed)
        other = "" if self._via == "auto" else f" by --via {self._via} (--via auto tries all)"
        return (
            f"{shown_host(self._url)} goes on with no answer that is begun{other} ({tried}): free answers don't decide "
            "at this scale, so nothing more is asked; keep both answers of some requests from now on "
            "(`dyetrace gateway`), and test the suspect by `dyetrace trace twins`"
        )

    # What reads whole answers.

    async def _whole(self, wanted: Sequence[RaceEndpointAsk]) -> RaceAsking | None:
        if not WHOLE_ANSWERS & set(wanted):
            return None
        if self._via == "prefill":
            self._prober.probed.append(
                "log-probabilities of a whole answer: not by --via prefill, where text is put into tokens anew: only "
                "token ids are read as they were served"
            )
            return None
        for ask in wanted:
            if ask == "prompt-logprobs":
                for count in LISTED:
                    extra = {"prompt_logprobs": count, "logprobs": count}
                    name = f"prompt_logprobs of token ids ({count} at a place)"
                    trial = self._by_ids(name, extra, self._prompt_problem(count), count)
                    if await self._prober.offers(trial):
                        return _whole_answer(ask, extra, count)
            if ask == "echo":
                extra = {"echo": True, "logprobs": 1}
                name = "echo of token ids with their log-probabilities"
                trial = self._by_ids(name, extra, self._echo_problem)
                if await self._prober.offers(trial):
                    return _whole_answer(ask, extra, 0)
        return None

    def _by_ids(
        self,
        name: str,
        extra: dict[str, Any],
        problem: Callable[[bytes], str | None],
        count: int | None = None,
    ) -> Trial:
        """Log-probabilities of token ids, asked of two texts that begin alike: what follows must not show in them.

        With ``count`` likely tokens at a place; where texts part, too, those must be the same.
        """
        half = len(self._ids) // 2
        other = [*self._ids[:half], *reversed(self._ids[half:])]
        asked = [question_of(ids, "completions", "", 1, **extra) for ids in (self._ids, other)]

        def found(replies: Sequence[bytes]) -> str | None:
            if (wrong := problem(replies[0])) is not None:
                return wrong
            one, two = (_own(payload, ids) for payload, ids in zip(replies, (self._ids, other), strict=True))
            part = next(place for place, (a, b) in enumerate(zip(self._ids, other, strict=True)) if a != b)
            if looks_ahead(one[:part], two[:part], (float(one[part]), float(two[part]))):
                return AHEAD
            if count is not None:
                first, second = (_likely(payload, part + 1, count) for payload in replies)
                if looks_ahead(first[1:, 0], second[1:, 0]) or looks_ahead(first[part], second[part]):
                    return AHEAD
            return None

        return Trial(name, asked, found)

    def _prompt_problem(self, count: int) -> Callable[[bytes], str | None]:
        def problem(payload: bytes) -> str | None:
            listed = listed_prompt(payload)
            if listed is None:
                return "the reply has none"
            if len(listed) != len(self._ids):
                return f"it reads {len(listed)} tokens, and {len(self._ids)} were sent"
            names = [
                next((one.text for one in entries if one.id == own), None)
                for entries, own in zip(listed, self._ids, strict=True)
            ]
            if any(name is None for name in names[1:]):
                return "the tokens that were sent are not among those that came back"
            if (other := self._other_tokens(names[1:], self._ids[1:])) is not None:
                return other
            few = min(count, 2)
            if any(len(likely(entries, count)) < few - 1 for entries in listed[1:]):
                return "it lists the prompt's own tokens alone"
            return None

        return problem

    def _echo_problem(self, payload: bytes) -> str | None:
        found = read_prompt(payload)
        if found.problem is not None:
            return found.problem
        tokens = found.tokens[: len(self._ids)]
        if len(tokens) < len(self._ids):
            return f"it reads {len(tokens)} tokens, and {len(self._ids)} were sent"
        return self._other_tokens([token.text for token in tokens[1:]], self._ids[1:])

    def _other_tokens(self, names: Sequence[str | None], ids: Sequence[int]) -> str | None:
        """Why the tokens that a server says it read are not the spec's own; None where they are."""
        special = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        compared = 0
        for name, number in zip(names, ids, strict=True):
            own = _letters(self._tokenizer.decode([number], skip_special_tokens=False))
            if number in special or not own:
                continue
            if name is None or _letters(name) != own:
                return "its token ids are not the spec's"
            compared += 1
        return None if compared >= min(_FEWEST, len(ids)) else "it doesn't say which tokens it read"

    # How a begun answer is shown.

    async def _way(self) -> _Way | None:
        """The first way by which the suspect goes on with an answer that is begun; None where there is none."""
        if self._via in ("auto", "completions") and await self._knows_ids():
            return _Way("completions", "ids", ids=True, returned=True)
        if self._via in ("auto", "prefill"):
            for form in _PREFILLS:
                question = question_of(_messages(), form, BEGUN, _TOKENS)
                trial = Trial(f"going on with a chat's last message ({form})", [question], _goes_on)
                if await self._prober.offers(trial):
                    payload, _ = await self._prober.ask(question)
                    known = await self._prefill_ids(form)
                    return _Way(form, "messages", ids=known, returned=known, repeats=_repeats(payload))
        if self._via in ("auto", "completions"):
            return await self._as_text()
        return None

    async def _knows_ids(self) -> bool:
        """Whether /completions takes ids, and they are the spec's: text is read as the same ids, or ids as the text."""
        asked = question_of(self._sample.text, "completions", "", 1, return_token_ids=True)
        by_text = Trial("the token ids of a text that is read", [asked], self._read_as)
        if not await self._prober.offers(by_text):
            return False
        going_on = question_of(self._ids, "completions", "", 1, return_token_ids=True)
        by_ids = Trial("going on from token ids", [going_on], lambda replies: self._ids_taken(replies[0]))
        return await self._prober.offers(by_ids)

    def _read_as(self, replies: Sequence[bytes]) -> str | None:
        choice = _choice(replies[0])
        if choice is None or choice.prompt_token_ids is None:
            return "not returned"
        ids = list(choice.prompt_token_ids)
        return None if ids[-len(self._ids) :] == self._ids else "they are not the spec's"

    def _ids_taken(self, payload: bytes) -> str | None:
        choice = _choice(payload)
        if choice is None or choice.prompt_token_ids is None:
            return "not returned"
        return None if list(choice.prompt_token_ids) == self._ids else "other ids are read than were sent"

    async def _prefill_ids(self, form: Form) -> bool:
        """Whether a chat's begun answer is read as the spec's ids."""
        question = question_of(_messages(), form, BEGUN, _TOKENS, return_token_ids=True)
        own = self._tokenizer.encode(BEGUN, add_special_tokens=False).ids[1:]  # a blank may be put before the first

        def problem(replies: Sequence[bytes]) -> str | None:
            choice = _choice(replies[0])
            if choice is None or choice.prompt_token_ids is None:
                return "not returned"
            return None if list(choice.prompt_token_ids)[-len(own) :] == own else "they are not the spec's"

        return await self._prober.offers(Trial("the token ids of a message that is read", [question], problem))

    async def _as_text(self) -> _Way | None:
        """Text for /completions: as the owner rendered it where the suspect knows that template, else plain."""
        shown: list[tuple[Shown, str]] = [("plain", self._sample.plain)]
        if self._sample.rendered is not None:
            first = await self._prober.offers(
                Trial(
                    "the owner's chat template is the suspect's, by the count of tokens",
                    [question_of(self._sample.rendered, "completions", "", _TOKENS)],
                    self._counted,
                )
            )
            shown.insert(0 if first else 1, ("rendered", self._sample.rendered))
        for name, text in shown:
            question = question_of(text, "completions", "", _TOKENS)
            if await self._prober.offers(Trial(f"going on with a text ({name})", [question], _goes_on)):
                payload, _ = await self._prober.ask(question)
                return _Way("completions", name, ids=False, repeats=_repeats(payload, text))
        return None

    def _counted(self, replies: Sequence[bytes]) -> str | None:
        count = read_response(replies[0], 1).prompt_tokens
        if count is None:
            return "it doesn't count"
        # One more is a token that stands before every text.
        return None if count - len(self._ids) in (0, 1) else f"{count} tokens, {len(self._ids)} at the owner's"

    # What asks for one token at a time.

    async def _one_token(self, wanted: Sequence[RaceEndpointAsk], way: _Way) -> RaceAsking | None:
        for ask in wanted:
            if ask == "logprobs" and (found := await self._logprobs(way)) is not None:
                return found
            if ask == "bias":
                forced = self._forced(way)
                if await self._prober.offers(Trial("a bias for token ids, which are the spec's", *forced)):
                    return _one_word("bias", replace(way, ids=True), power=POWER, least=LEAST)
            if ask == "greedy":
                return _one_word("greedy", way, run=RUN)
        return None

    async def _logprobs(self, way: _Way) -> RaceAsking | None:
        with_ids = {"return_tokens_as_token_ids": True} if way.ids else {}
        if way.ids:
            ids = self._ids[: _FORCED + _FEWEST]
            named = {**_wanted_logprobs(way, 1), "logprob_token_ids": sorted(set(ids)), **with_ids}
            trial = Trial(
                "log-probabilities of the next token, of tokens by their ids",
                [self._question(way, named)],
                lambda replies: _names(replies[0], set(ids)),
            )
            if await self._prober.offers(trial):
                return _one_word("logprobs", way, named=True, extra={**_wanted_logprobs(way, 1), **with_ids})
        for count in LISTED:
            extra = {**_wanted_logprobs(way, count), **with_ids}
            trial = Trial(
                f"log-probabilities of the next token ({count} likely ones)",
                [self._question(way, extra)],
                lambda replies: _lists(replies[0]),
            )
            if await self._prober.offers(trial):
                return _one_word("logprobs", way, alternatives=count, extra=extra, run=RUN)
        return None

    def _question(self, way: _Way, extra: dict[str, Any]) -> Question:
        prompt, begun = self._shown(way)
        return question_of(prompt, way.form, begun, 1, **extra)

    def _shown(self, way: _Way) -> tuple[Any, str]:
        if way.shown == "ids":
            return self._ids, ""
        if way.shown == "messages":
            return _messages(), BEGUN
        return (self._sample.plain if way.shown == "plain" else self._sample.text), ""

    def _forced(self, way: _Way) -> tuple[list[Question], Callable[[Sequence[bytes]], str | None]]:
        """Questions that force a word each by its id, and what their replies show."""
        forced = [(number, self._tokenizer.decode([number])) for number in self._words()]
        questions = [self._question(way, {"logit_bias": {str(number): 100}}) for number, _ in forced]
        prompt, begun = self._shown(way)
        before = begun or prompt if way.repeats else ""

        def problem(replies: Sequence[bytes]) -> str | None:
            for payload, (_, word) in zip(replies, forced, strict=True):
                choice = _choice(payload)
                said = "" if choice is None else choice.text.removeprefix(before)
                if said.strip() != word.strip():
                    return "another word is said than the one that is asked for by its id"
            return None if forced else "the tokenizer has no words to try it with"

        return questions, problem

    def _words(self) -> list[int]:
        """Ids of words far apart in the vocabulary, whose text says which ones they are."""
        size = self._tokenizer.get_vocab_size()
        special = set(self._tokenizer.get_added_tokens_decoder())
        found = []
        for start, end in pairwise(range(size // 4, size + 1, max(1, size // (_FORCED + 1)))):
            for number in range(start, end):
                text = self._tokenizer.decode([number])
                word = text.strip()
                if number not in special and word.isascii() and word.isalnum() and len(word) > 1:
                    found.append(number)
                    break
        return found[:_FORCED]


def _own(payload: bytes, ids: Sequence[int]) -> F64:
    """Log-probabilities of the tokens that were sent, shape (n,); NaN where there is none."""
    choice = _choice(payload)
    return own_of_prompt(None if choice is None else choice.tokens, listed_prompt(payload), ids)


def _likely(payload: bytes, places: int, count: int) -> F64:
    """Log-probabilities of the likely tokens at the first places, by falling size, shape (places, count); NaN for none.

    They are those whichever token stands there.
    """
    found = np.full((places, count), math.nan)
    for row, entries in zip(found, listed_prompt(payload) or [], strict=False):
        logs = sorted((one.logprob for one in likely(entries, count)), reverse=True)[:count]
        row[: len(logs)] = logs
    return found


def _messages() -> list[dict[str, Any]]:
    return [{"role": "user", "content": PROMPT}]


def _whole_answer(ask: RaceEndpointAsk, extra: dict[str, Any], alternatives: int) -> RaceAsking:
    return RaceAsking(ask=ask, form="completions", shown="ids", ids=True, alternatives=alternatives, extra=extra)


def _one_word(
    ask: RaceEndpointAsk, way: _Way, *, extra: dict[str, Any] | None = None, run: int = 1, **fields: Any
) -> RaceAsking:
    with_ids = {"return_token_ids": True} if way.returned else {}
    return RaceAsking(
        ask=ask,
        form=way.form,
        shown=way.shown,
        ids=way.ids,
        repeats=way.repeats,
        # A word of the owner's may be several tokens of another tokenizer; log-probabilities are those of the first.
        max_tokens=max(run, 1 if way.ids or ask == "logprobs" else 4),
        run=run,
        extra={**(extra or {}), **with_ids},
        **fields,
    )


def _wanted_logprobs(way: _Way, count: int) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": count} if way.chat else {"logprobs": count}


def _choice(payload: bytes) -> Choice | None:
    choices = read_response(payload, 1).choices
    return choices[0] if choices else None


def _goes_on(replies: Sequence[bytes]) -> str | None:
    response = read_response(replies[0], 1)
    if not response.choices:
        return response.problem or "no choices"
    choice = response.choices[0]
    if choice.problem is not None:
        return choice.problem
    said = _new(choice.text).strip()
    return None if said.startswith(_NEXT) else "it doesn't go on with the answer, but begins another one"


def _new(text: str) -> str:
    """A reply without what it repeats."""
    return text.rpartition(BEGUN)[2]


def _repeats(payload: bytes, text: str = BEGUN) -> bool:
    choice = _choice(payload)
    return choice is not None and choice.text.startswith(text)


def _lists(payload: bytes) -> str | None:
    choice = _choice(payload)
    if choice is None or not choice.tokens:
        return "the reply has none"
    return None if len(choice.tokens[0].top) > 1 else "it lists one token alone"


def _names(payload: bytes, ids: set[int]) -> str | None:
    choice = _choice(payload)
    if choice is None or not choice.tokens:
        return "the reply has none"
    listed = {token.id for token in choice.tokens[0].top}
    return None if ids <= listed else "those that were asked for are not in the reply"


def _letters(text: str) -> str:
    """What servers keep of a token's text: some lose white space, or show parts of characters in their own way."""
    return "".join(c for c in text if c.isascii() and c.isprintable() and not c.isspace())
