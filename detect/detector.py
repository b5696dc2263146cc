"""Testing texts from a program: a watermark, keys and a tokenizer made ready once, for any number of calls.

What is fixed before the key matters is the text: it must not have been chosen with the key. A program that tests many
texts and looks at the strongest has looked many times: `Detector.test_all` tests them together and pays for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from operator import index
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.document.detection import Model, Settings, prepare, recorded
from detect.keyed.rings import rings_of
from detect.laws.level import DEFAULT_ALPHA
from detect.readers.suspects import Suspect
from detect.records.detection import Input
from detect.result import DOCUMENTS, DetectionResult
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec, load_spec

TokenIds = Sequence[int] | np.ndarray[Any, Any]


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document as `detect.result.DOCUMENTS` holds it."""

    text: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Detector:
    """Tests texts for a watermark.

    Parameters
    ----------
    spec
        The watermark, or the path of its spec.
    key
        Where the key is (``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``), or a ring of keys.
    tokenizer
        The spec's: a model's folder, its tokenizer.json, or a `tokenizers` or fast `transformers` tokenizer.
    tenants
        Accounts to test beside the global key.
    alpha
        The level of "found", in (0, 1).
    decoys, decoy_seed
        Decoy keys that every document is tested under, and their public seed.
    quotes
        Whether texts may stand in what is saved and shown.
    model, model_name
        The owner's model (a `transformers` causal language model) for the model-aware test, and its name.

    Raises
    ------
    DyetraceError
        Spec, key and tokenizer don't belong together.

    Examples
    --------
    A key that everybody knows, and its tokenizer, which has a token for each character:

    >>> import os, detect
    >>> os.environ["OWNER_KEY"] = b"a key that everybody knows......".hex()
    >>> detector = detect.Detector("tests/golden/spec.json", "env:OWNER_KEY", "tests/golden/tokenizer.json")
    >>> result = detector.test("Rivers carry dye for many miles, and nobody has marked this sentence.")
    >>> result.found
    False
    >>> result.log10_pvalue > -2
    True
    """

    def __init__(
        self,
        spec: WatermarkSpec | str | Path,
        key: str | KeyRing,
        tokenizer: Any,
        *,
        tenants: Sequence[str] = (),
        alpha: float = DEFAULT_ALPHA,
        decoys: int = 100,
        decoy_seed: str = "dyetrace",
        quotes: bool = True,
        model: Any = None,
        model_name: str = "the owner's model",
    ) -> None:
        try:
            msgspec.convert((alpha, decoys, decoy_seed, quotes, model_name), tuple[float, int, str, bool, str])
        except msgspec.ValidationError as error:
            asked = "alpha, decoys, decoy_seed, quotes, model_name"
            raise DyetraceError(f"the detector can't be made: {error} of ({asked})") from None
        spec = spec if isinstance(spec, WatermarkSpec) else load_spec(Path(spec))
        if isinstance(key, KeyRing):
            if tenants:
                raise DyetraceError("a ring of keys names its own tenants: leave tenants out")
            ring = key
        else:
            ring = rings_of(key, [spec], tenants)[0]
        settings = Settings(alpha=alpha, decoy_count=decoys, decoy_seed=decoy_seed, quotes=quotes)
        self._bench = prepare(
            spec, ring, tokenizer, settings, model=None if model is None else Model(model_name, model)
        )

    def test(self, text: str | TokenIds, *, prompt: TokenIds | None = None) -> DetectionResult:
        """Test one text.

        Parameters
        ----------
        text
            A string, or the token ids of the spec's tokenizer.
        prompt
            Token ids of what the text followed, where that is known: its first tokens can be tested then.

        Raises
        ------
        DyetraceError
            It is neither a string nor token ids, or a token id of it lies outside the vocabulary.
        """
        return self._tested([_line(text, prompt)])

    def test_all(self, texts: Iterable[str | TokenIds]) -> DetectionResult:
        """Test texts together: ``found`` and ``log10_pvalue`` pay for their number.

        Raises
        ------
        DyetraceError
            There is no text, or a token id lies outside the vocabulary.
        """
        if isinstance(texts, str):  # else each of its letters would be a text
            raise DyetraceError("this is one text: `Detector.test` tests one, and `test_all` takes a list of them")
        lines = [_line(text, None) for text in texts]
        if not lines:
            raise DyetraceError("there is no text to test")
        return self._tested(lines)

    def _tested(self, lines: Sequence[_Line]) -> DetectionResult:
        suspects = [
            Suspect(f"line {number}", line.text, line.token_ids, line.prompt_token_ids, f"line {number}")
            for number, line in enumerate(lines, 1)
        ]
        data = _encoded(lines)
        given = Input(name=DOCUMENTS, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        record = recorded(self._bench, suspects, [given], self._bench.test(suspects), arguments={"format": "jsonl"})
        return DetectionResult(record, texts=data)

    def __repr__(self) -> str:
        bench = self._bench
        return f"<Detector {bench.spec.scheme} spec={bench.spec.spec_id} keys={len(bench.family.names)}>"


def _line(text: str | TokenIds, prompt: TokenIds | None) -> _Line:
    before = None if prompt is None else _ids(prompt)
    if isinstance(text, str):
        return _Line(str(text), None, before)
    return _Line(None, _ids(text), before)


def _ids(given: TokenIds) -> list[int]:
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        ids = [index(token) for token in given]
    except TypeError:
        raise DyetraceError("a text is a string, or a list of token ids, which are whole numbers") from None
    if any(not 0 <= token < 2**32 for token in ids):
        raise DyetraceError("a token id lies outside 0 .. 2^32 - 1")
    return ids


def _encoded(lines: Sequence[_Line]) -> bytes:
    try:
        return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    except UnicodeEncodeError as error:
        raise DyetraceError(f"a text is no Unicode ({error.reason} at {error.start}): decode it anew") from None
