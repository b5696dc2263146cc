"""`dyetrace demo`: the whole job on a real model and real text, as a user would do it step by step."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from detect.document.detection import Model, Settings, detect
from detect.folders.own import SCRATCH, is_plain, remove_plain
from detect.folders.published import NAMES, REPORT, STAGE, check_folder
from detect.keyed.opening import is_opened
from detect.readers.suspects import from_text_alone, read_suspects
from detect.records.detection import Record
from detect.text.natural_text import natural_documents
from watermark.commitment import commit, write_commitment
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder, write_atomically
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey, load_master, write_key_file
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec

PROMPTS = (
    "Explain to a child why the sky is blue.",
    "Describe a morning at a busy fish market.",
    "What should I check before I buy a used bicycle?",
    "Write a short story about a lighthouse keeper who finds a letter.",
    "How did the printing press change Europe?",
    "Give advice to someone who starts a vegetable garden.",
)
NATURAL_DOCUMENTS = 6
TOKENS = 160

_MARK = "unfinished"
_MARKED = b"`dyetrace demo` has not finished what is in this folder, and begins it anew when it is run again.\n"
_MADE = ("owner.key", "spec.json", "commitment.json", "commitment.json.opening", "suspects.jsonl")


def run_demo(folder: Path, scheme: str, say: Callable[[str], None]) -> Record:
    """Mark answers, mix them with natural text, detect; leave every file of the job in ``folder``.

    Until `finish_demo` is called, what is there counts as an unfinished demo, which the next one replaces.

    Raises
    ------
    DyetraceError
        The folder holds other files than an unfinished demo's, or the demo model cannot be had.
    """
    make_folder(folder)
    _clear_unfinished(folder)
    if any(folder.iterdir()):
        raise DyetraceError(f"folder {folder} is not empty; remove it or choose another with --output")
    write_atomically(folder / _MARK, _MARKED)
    say("1/4 the demo model, SmolLM2-135M-Instruct")
    model_dir = demo_model_dir(say)
    model, tokenizer = load_model(model_dir)

    say("2/4 key, spec and commitment")
    key = SecretKey.generate()
    write_key_file(folder / "owner.key", key)
    spec = WatermarkSpec(
        scheme=scheme,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
    )
    write_spec(folder / "spec.json", spec)
    commitment, opening = commit(spec, key)
    write_commitment(folder / "commitment.json", commitment, opening)

    say(f"3/4 {len(PROMPTS)} marked answers of {TOKENS} tokens, and {NATURAL_DOCUMENTS} natural texts")
    sampling = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=TOKENS)
    ring = KeyRing.from_master(key, spec.epoch)
    answers = list(generate_answers(model, tokenizer, PROMPTS, sampling, spec, ring))
    natural = natural_documents("prose", NATURAL_DOCUMENTS)
    write_atomically(folder / "suspects.jsonl", _mixed(answers, natural))

    source = f"file:{(folder / 'owner.key').absolute()}"  # relative ones that begin with ~ would mean another folder
    say("4/4 detection, blind and model-aware, each under 100 decoy keys")
    suspects, read = read_suspects(str(folder / "suspects.jsonl"))
    return detect(
        [from_text_alone(suspect) for suspect in suspects],
        [read],
        spec,
        KeyRing.from_master(load_master(source), spec.epoch),
        model_dir,
        Settings(),
        model=Model("SmolLM2-135M-Instruct", model),
        commitment=commitment,
        opened=is_opened(folder / "commitment.json", commitment, [spec], source),
        arguments={
            "source": read.name,
            "format": "auto",
            "text_field": "text",
            "from_text": True,
            "aware": True,
            "limit": None,
        },
        progress=lambda done, of: say(f"    {done} of {of} documents"),
    )


def is_unfinished(folder: Path) -> bool:
    """Whether a demo was cut off there, so that the next one may begin anew."""
    mark = folder / _MARK
    return is_plain(mark) and mark.read_bytes() == _MARKED


def finish_demo(folder: Path) -> None:
    """Say that the folder is as it should be, if its report is there: it stays."""
    if is_unfinished(folder) and (folder / REPORT).exists():
        remove_plain(folder / _MARK)


def _clear_unfinished(folder: Path) -> None:
    """Remove what a demo that was cut off has made, if there is nothing else; its mark goes last."""
    names = set(os.listdir(folder))
    own = {name for name in names if name in (*_MADE, *NAMES, STAGE, _MARK) or re.fullmatch(SCRATCH, name)}
    just_begun = all(re.fullmatch(SCRATCH, name) for name in names)
    if (
        not (is_unfinished(folder) or just_begun)
        or names != own
        or not all(is_plain(folder / name) for name in own - {STAGE})
    ):
        return
    if STAGE in own:  # a report was being written: that is ended first, as any command ends it
        check_folder(folder, None)
        names = set(os.listdir(folder))
    for name in sorted(names - {STAGE}, key=lambda name: name == _MARK):
        remove_plain(folder / name)


def _mixed(answers: list[Answer], natural: list[tuple[str, str]]) -> bytes:
    """Marked and natural documents in turn, as JSONL that holds the texts alone: what a stranger would have."""
    lines = []
    for number, (answer, (name, text)) in enumerate(zip(answers, natural, strict=True), 1):
        lines.append({"id": f"answer {number}", "text": answer.text})
        lines.append({"id": name, "text": text[:4000]})
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
