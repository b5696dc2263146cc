"""What a server answered to the requests of a check, as token ids that can be tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detect.student.asking.answers import Choice
from detect.student.asking.message_texts import TextKind
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.prf import U32
from watermark.spec import WatermarkSpec, check_tokenizer


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the server answered with an error of the client's: status, message in a line, and body."""

    status: int
    says: str
    payload: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A text ready to be tested: all that an answer is where the server sends ids, else one of its texts.

    Attributes
    ----------
    prompt
        Number of its prompt, from 0.
    ids
        Token ids, (n,).
    lead
        The prompt's token ids as the model read them; None where unknown.
    exact
        Whether the server sent the ids; otherwise they come from the text.
    part
        Which text of the answer it is.
    """

    prompt: int
    ids: U32
    lead: U32 | None
    exact: bool
    part: TextKind = "answer"


@dataclass(frozen=True, slots=True)
class Special:
    """What became of requests that a hook has to treat with care; None where none was made."""

    greedy: list[Served] | Refused | None = None
    samples: list[Served] | Refused | None = None
    opted_out: list[Served] | Refused | None = None
    seeded: tuple[list[Served] | Refused, list[Served] | Refused] | None = None


class Reader:
    """Token ids of answers: the server's own, else the text's.

    Parameters
    ----------
    spec
        Ids must lie in its vocabulary.
    tokenizer
        Of the spec, for servers that send no ids; None where there is none.

    Raises
    ------
    DyetraceError
        The tokenizer is not the spec's.
    """

    def __init__(self, spec: WatermarkSpec, tokenizer: Any) -> None:
        self._size = spec.vocabulary_size
        self._encoder: Encoder | None = None
        if tokenizer is not None:
            check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
            self._encoder = Encoder.load(tokenizer)

    def read(self, prompt: int, choice: Choice) -> list[Served]:
        """The texts of an answer, each for itself; none where it holds nothing.

        Reasoning and calls of tools are texts as well: a hook marks all that the model writes.

        Raises
        ------
        DyetraceError
            Its ids are of another vocabulary, or it has none and there is no tokenizer.
        """
        if choice.token_ids is not None:
            lead = None if choice.prompt_token_ids is None else np.array(choice.prompt_token_ids, dtype=np.uint32)
            ids = np.array(choice.token_ids, dtype=np.uint32)
            if ids.max() >= self._size:
                raise DyetraceError(
                    f"the server sends token id {ids.max()}, but the spec's vocabulary has {self._size} entries: it "
                    "serves another model than the spec was made for"
                )
            return [Served(prompt, ids, lead, exact=True)]
        if not choice.said:
            return []
        if self._encoder is None:
            raise DyetraceError(
                "the server sends no token ids (vLLM does), so that its texts must be encoded: give the model's "
                "folder or tokenizer.json by --tokenizer"
            )
        return [Served(prompt, self._encoder.encode(one.text), None, exact=False, part=one.kind) for one in choice.said]
