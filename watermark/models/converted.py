"""Tokenizers of model folders as transformers gives them, and those that it makes of other files than a tokenizer.json.

What it makes of a SentencePiece file is held against SentencePiece itself: with some classes it cuts texts otherwise,
and a model that is shown other tokens than it was trained on says nothing of what it learnt.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError, MachineError, missing_of_machine
from watermark.models.gguf import opened
from watermark.models.given import SERVE, TOKENIZER, shown

_OWN = {"local_files_only": True, "trust_remote_code": False}
_SAMPLES = (
    "The quick brown fox, 1234 times; it doesn't jump over \u00e7a va na\u00efve caf\u00e9s.",
    " leading and  double   spaces\tand a tab\nand lines\n\n  - with: (marks) [of] {all} <kinds> @ 99.5% #1!",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3001 \u041f\u0440\u0438\u0432\u0435\u0442, \u4f60\u597d "
    "\ud55c\uad6d\uc5b4 \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \U0001f600",
    "def f(x):\n    return {'a': x ** 2}  # comment\n",
)
_SAVE = "save its tokenizer with `save_pretrained`, which writes tokenizer.json, and put that file into the folder"


def model_tokenizer(place: Path, config: Any = None) -> Any:
    """The transformers tokenizer of a model, one that `tokenizers` runs.

    Parameters
    ----------
    place
        A folder, or a GGUF file.
    config
        The model's configuration, where the folder has none.

    Raises
    ------
    DyetraceError
        There is none, or none that cuts texts as its own files say.
    MachineError
        A package is missing.
    """
    if place.is_file():
        opened(place)
        with quiet_bars():
            return _loaded(place.parent, gguf_file=place.name)
    if (file := place / TOKENIZER).is_file():
        beside = {} if config is None or (place / "config.json").is_file() else {"config": config}
        return _as_its_own_file(place, file, _of_json(file), **beside)
    pieces = next((path for path in _sentencepiece_files(place)), None)
    if pieces is not None:
        return _of_sentencepiece(place, pieces)
    if next(place.glob("*.tiktoken"), None) is not None or (place / "tokenizer.model").is_file():
        raise DyetraceError(
            f"the tokenizer of {place} is a tiktoken file, which does not say where texts are cut first; {_SAVE} "
            f"(transformers.integrations.tiktoken.convert_tiktoken_to_fast does it for a known tiktoken.Encoding), or "
            f"{SERVE}"
        )
    return _checked(place, _loaded(place))


def _loaded(folder: Path, **more: Any) -> Any:
    import transformers

    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, **_OWN, **more)
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own kinds
        raise _unreadable(folder, error) from error
    if getattr(found, "backend_tokenizer", None) is None:
        raise DyetraceError(
            f"the tokenizer of {folder} ({type(found).__name__}) is none that `tokenizers` runs; {_SAVE}, or {SERVE}"
        )
    return found


def _unreadable(folder: Path, error: Exception) -> DyetraceError:
    reason = shown(error)
    if "trust_remote_code" in reason:
        return DyetraceError(
            f"the tokenizer of {folder} asks for Python code of its own, and code that comes with weights is never "
            f"run; {_SAVE}, or {SERVE}"
        )
    if isinstance(error, ImportError):
        return MachineError(f"can't read the tokenizer of {folder}: {reason}; install that package, or {_SAVE}")
    if (lacking := missing_of_machine(error)) is not None:
        return MachineError(f"can't read the tokenizer of {folder}: {lacking}")
    return DyetraceError(f"can't read the tokenizer of {folder}: {type(error).__name__}: {reason}; {_SAVE}, or {SERVE}")


def _sentencepiece_files(folder: Path) -> Iterator[Path]:
    """Files of SentencePiece: a protocol buffer whose first field is a piece, which no file of tiktoken begins with."""
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                if file.read(1) == b"\x0a":
                    yield path


def _of_sentencepiece(folder: Path, pieces: Path) -> Any:
    """The tokenizer of a SentencePiece file, as SentencePiece itself reads it."""
    try:
        import sentencepiece
    except ImportError:
        raise MachineError(
            f"the tokenizer of {folder} is a SentencePiece file ({pieces.name}): run "
            f"`pip install sentencepiece protobuf`, or {_SAVE}"
        ) from None
    try:
        own = sentencepiece.SentencePieceProcessor(str(pieces))
    except Exception as error:
        raise _unreadable(folder, error) from error
    return _as_its_own_file(folder, pieces, [own.encode(text) for text in _SAMPLES])


def _of_json(file: Path) -> list[list[int]]:
    """How a tokenizer.json cuts the samples."""
    from tokenizers import Tokenizer

    try:
        data = file.read_bytes()
        seen = hashlib.blake2b(data).digest()
        if seen not in _cut:
            own = Tokenizer.from_buffer(data)
            _cut[seen] = [own.encode(text, add_special_tokens=False).ids for text in _SAMPLES]
        return _cut[seen]
    except Exception as error:  # the Rust side raises bare Exception
        raise _unreadable(file.parent, error) from error


_cut: dict[bytes, list[list[int]]] = {}  # how files of this process cut the samples, by their hash


def _as_its_own_file(folder: Path, file: Path, wanted: list[list[int]], **more: Any) -> Any:
    """The first of two ways of transformers to read a file that cuts texts as the file says."""
    import transformers

    # A class that tokenizer_config.json names may build a tokenizer of its own from the file's pieces.
    ways = (
        partial(_loaded, folder, **more),
        partial(transformers.PreTrainedTokenizerFast.from_pretrained, folder, **_OWN),
    )
    first: Exception | None = None
    for way in ways:
        try:
            found = way()
            if [found.encode(text, add_special_tokens=False) for text in _SAMPLES] == wanted:
                return found
        except MachineError:
            raise
        except Exception as error:  # what the other way makes of it counts
            first = first or error
    if isinstance(first, DyetraceError):
        raise first
    raise DyetraceError(
        f"what transformers makes of {file} cuts texts otherwise than that file says; {_SAVE}, or {SERVE}"
    )


def _checked(folder: Path, found: Any) -> Any:
    """Refuse a tokenizer of a vocabulary and merges that loses what it reads."""
    for text in _SAMPLES:
        ids = found.encode(text, add_special_tokens=False)
        if found.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False).strip() != text.strip():
            raise DyetraceError(
                f"what transformers makes of the tokenizer's files in {folder} loses parts of texts; {_SAVE}, "
                f"or {SERVE}"
            )
    return found


@contextlib.contextmanager
def quiet_bars() -> Iterator[None]:
    """Hide the one bar that transformers draws whatever its settings say, as it reads a GGUF file."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = getattr(reader, "tqdm", None)
    if bar is not None:
        reader.tqdm = lambda items, **_: items
    level = logging.getLogger("gguf").level
    logging.getLogger("gguf").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("gguf").setLevel(level)
        if bar is not None:
            reader.tqdm = bar
