"""Tokenizers: loading one, its vocabulary size, and a fingerprint that two sides can compare."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError
from watermark.models.given import ADAPTER_CONFIG, find_model, has_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["load_tokenizer", "tokenizer_fingerprint", "vocabulary_size"]

# Parts of a tokenizer.json that never change the ids of plain text. `special` decides what decoding skips;
# `trim_offsets` moves character offsets only.
_NO_EFFECT_ON_IDS = ("special", "trim_offsets")


def load_tokenizer(source: Any) -> Tokenizer:
    """Load a `tokenizers.Tokenizer` that neither truncates nor pads.

    Parameters
    ----------
    source
        A model's folder, its tokenizer.json, a GGUF file, a `tokenizers.Tokenizer` (copied) or a transformers
        fast tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MachineError("reading text needs `tokenizers`: run `pip install tokenizers`") from None

    if isinstance(source, str | os.PathLike):
        place = _place(Path(source).expanduser())
        if place.suffix.lower() == ".gguf" or place.is_dir():
            from watermark.models.converted import model_tokenizer
            from watermark.models.packages import quiet_transformers, require_model_packages

            require_model_packages()
            with quiet_transformers():
                tokenizer = Tokenizer.from_str(_serialised(model_tokenizer(place)))
        else:
            try:
                tokenizer = Tokenizer.from_file(str(place))
            except Exception as error:  # the Rust side raises bare Exception
                reason = " ".join(str(error).split())[:200]
                raise DyetraceError(f"{place} is not a tokenizer.json that `tokenizers` can read: {reason}") from error
    else:
        try:
            tokenizer = Tokenizer.from_str(_serialised(source))
        except DyetraceError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DyetraceError(f"the tokenizer contradicts itself, so `tokenizers` can't read it: {reason}") from error
    # A length limit kept in the file would silently cut a suspect text short.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _place(path: Path) -> Path:
    """Where a tokenizer is: a tokenizer.json, or what one is made of, a GGUF file or a folder with other files."""
    how = "give a model folder or a tokenizer.json as written by `save_pretrained`"
    if not path.exists():
        raise DyetraceError(f"tokenizer {path} does not exist: {how}")
    if path.is_file():
        return path
    if not has_tokenizer(path):
        if not any((path / name).is_file() for name in ("config.json", ADAPTER_CONFIG)) and not any(
            path.glob("*.gguf")
        ):
            raise DyetraceError(f"folder {path} has no tokenizer.json: {how}")
        path = find_model(path).tokenizer
        if path.is_file():
            return path
    file = path / "tokenizer.json"
    return file if file.is_file() else path


def _serialised(source: Any) -> str:
    """Return the tokenizer.json text behind a tokenizer object."""
    backend = getattr(source, "backend_tokenizer", source)
    to_str = getattr(backend, "to_str", None)
    if not callable(to_str):
        raise DyetraceError(
            f"tokenizer ({type(source).__name__}) must be a path, a tokenizers.Tokenizer "
            "or a transformers fast tokenizer"
        )
    return str(to_str())


def tokenizer_fingerprint(source: Any) -> str:
    """Hash (BLAKE2b-128, hex) everything in a tokenizer that decides the ids of a text, and nothing else.

    The vocabulary in the order of ids, the merges in order, the added tokens, the normalizer and the
    pre-tokenizer count. Truncation, padding, post-processing (special tokens around a text), decoding, the
    chat template, the file's formatting and the order of its keys do not.

    Parameters
    ----------
    source
        As for `load_tokenizer`.
    """
    text = _text(source)
    if text is None:
        return _fingerprint(load_tokenizer(source))
    seen = hashlib.blake2b(text).digest()
    if seen not in _known:
        _known[seen] = _fingerprint(load_tokenizer(source))
    return _known[seen]


_known: dict[bytes, str] = {}  # by a hash of the text: each takes a fifth of a second, and runs ask several times


def _text(source: Any) -> bytes | None:
    """What a tokenizer is read from; None where it is made from other files, or can't be read."""
    if not isinstance(source, str | os.PathLike):
        return _serialised(source).encode("utf-8", "surrogatepass")
    place = _place(Path(source).expanduser())
    if place.suffix.lower() == ".gguf" or not place.is_file():
        return None
    try:
        return place.read_bytes()
    except OSError:
        return None


def _fingerprint(tokenizer: Tokenizer) -> str:
    # From `tokenizers` in every case: it fills in defaults, so files written by older versions agree.
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    model = dict(data["model"])
    vocabulary = model.pop("vocab")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.pop("merges", None) or []]
    added = data.get("added_tokens") or []
    ids: dict[str, int] = {token["content"]: token["id"] for token in added}
    if isinstance(vocabulary, dict):
        ids.update(vocabulary)  # some files list added tokens in the vocabulary as well, some do not
        pieces: list[Any] = []
    else:
        pieces = vocabulary  # Unigram: (piece, score), the index is the id
    material = {
        "vocabulary": sorted(([number, token] for token, number in ids.items())),
        "pieces": pieces,
        "merges": merges,
        "model": _effective(model),
        "normalizer": _effective(data.get("normalizer")) or None,
        "pre_tokenizer": _effective(data.get("pre_tokenizer")) or None,
        "added_tokens": sorted((_effective(token) for token in added), key=lambda token: token.get("id", 0)),
    }
    text = json.dumps(material, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=16, person=b"dyetrace-tok-1").hexdigest()


def _effective(part: Any) -> Any:
    """Drop keys at their empty default and keys without effect, so that equal behaviour gives equal text."""
    if isinstance(part, dict):
        kept = {key: _effective(value) for key, value in part.items() if key not in _NO_EFFECT_ON_IDS}
        kept = {key: value for key, value in kept.items() if not _is_absent(value)}
        # `tokenizers` and transformers write "no normalizer" in both ways.
        return {} if set(kept) == {"type"} and kept["type"] == "Sequence" else kept
    if isinstance(part, list):
        return [_effective(value) for value in part]
    return part


def _is_absent(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})  # 0 is a real id


def vocabulary_size(source: Any) -> int:
    """Return 1 + the largest token id, added tokens included.

    A model's logits row may be wider (padded to a multiple of 64 or so) and is never narrower.
    """
    if not isinstance(source, str | os.PathLike):
        return _size(source)
    text = _text(source)
    if text is None:
        return _size(load_tokenizer(source))
    seen = hashlib.blake2b(text).digest()
    if seen not in _sizes:
        _sizes[seen] = _size(load_tokenizer(source))
    return _sizes[seen]


_sizes: dict[bytes, int] = {}  # as `_known`


def _size(tokenizer: Any) -> int:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise DyetraceError("the tokenizer's vocabulary is empty: give one that belongs to a language model")
    return 1 + max(vocabulary.values())
