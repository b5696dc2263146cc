"""`dyetrace generate`: marked answers of a local model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from os.path import realpath  # which takes links in a circle as they are
from pathlib import Path
from typing import Any

import msgspec

from detect.cli.models import load_model, model_folder
from detect.cli.options.marking import Generate
from detect.cli.results import print_either
from detect.cli.working import doing, note, rest
from detect.interruption import leaves
from detect.keyed.rings import rings_of
from detect.models.seen import model_hash
from detect.readers.prompts import read_prompts
from detect.records.results import Generated
from detect.records.written import clean, counted
from watermark.errors import DyetraceError, MachineError
from watermark.files.partial import PartialFile, partial_paths
from watermark.files.writing import check_output
from watermark.generate import (
    Answer,
    Sampling,
    check_folder_fits,
    check_request,
    encode_answers,
    generate_batches,
    is_answers,
    settings_of,
)
from watermark.interruption import held
from watermark.keys import KeyRing, SecretKey, load_master, source_path
from watermark.models.writing import passed_over
from watermark.placebo import placebo
from watermark.spec import WatermarkSpec, load_spec
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger
from watermark.twins.twinning import Twinning, check_share


def generate(asked: Generate) -> None:
    """Answer the prompts, to a file or to standard output."""
    if asked.as_json and asked.output == "-":
        raise DyetraceError(
            "--json goes with -o FILE: without it standard output has the answers, which are JSON lines"
        )
    settings = Sampling(**asked.of(Sampling))
    if asked.limit is not None and asked.limit < 1:
        raise DyetraceError(f"--limit must be 1 or more (got {asked.limit})")
    _check_output(asked)
    made, ring = _watermark(asked)
    twins = _twins(asked)
    doing("reading the prompts and the model's settings")
    texts = read_prompts(asked.prompts, note)[: asked.limit]
    check_request(texts, settings, made, ring, asked.tenant, twins=twins is not None)
    folder = Path(model_folder(asked.model)).expanduser()
    check_folder_fits(folder, texts, settings, made)
    how = _Answering(folder, asked.dtype, texts, settings, made, ring, asked.tenant, not asked.raw, twins)
    if asked.output == "-":
        leaves("the answers that were printed are whole, and none is kept: give -o FILE to go on from where it was")
        how.run(_to_standard_output)
        return
    more = asked.on_record("dtype", "raw", "placebo") | ({} if twins is None else twins.on_record)
    described = settings_of(texts, settings, made, asked.tenant, folder, **more)
    group = settings.batch * settings.samples
    with PartialFile(Path(asked.output), described, group, replace=asked.force) as partial:
        had = min(partial.groups * group, how.total)
        if had:
            note(f"{had:,} answers are in {partial.path} already; going on from there")
        leaves(
            lambda: (
                f"{min(partial.groups * group, how.total):,} of {how.total:,} answers are kept in {partial.path}, and "
                "the same command goes on from there"
            )
        )
        how.run(partial.append, partial.run, partial.groups)
        with held():
            partial.finish()
            leaves(f"{asked.output} is whole")
    doing("hashing the answers")
    written = _written(Path(asked.output), how, had, asked.placebo)
    rest()
    note(f"wrote {asked.output}: {written.answers:,} answers of {written.tokens:,} tokens")
    if twins is not None:
        note(f"{counted(twins.added, 'pair')} went to {twins.path}; keep it private")
    print_either(written.sha256, written, asked.as_json)


def _written(path: Path, how: _Answering, kept: int, placebo: bool) -> Generated:
    """Read the answers once more, as they lie on the disk."""
    digest = hashlib.sha256()
    size = answers = tokens = 0
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            size, answers = size + len(line), answers + 1
            tokens += len(msgspec.json.decode(line, type=Answer).token_ids)
    return Generated(
        path=str(path),
        sha256=digest.hexdigest(),
        bytes=size,
        prompts=len(how.prompts),
        answers=answers,
        tokens=tokens,
        kept=kept,
        spec_id=None if how.spec is None else how.spec.spec_id,
        tenant=how.tenant,
        placebo=placebo,
        twins=None if how.twins is None else how.twins.added,
    )


def _check_output(asked: Generate) -> None:
    """Refuse an output that is one of the files that the run reads, or in the way of something else."""
    if asked.output == "-":
        if asked.force:
            raise DyetraceError("--force goes with -o FILE: standard output replaces nothing")
        return
    prompts = None if asked.prompts == "-" else Path(asked.prompts)
    sources = [source_path(source) for source in (asked.key, asked.twin_key) if source is not None]
    inputs = [prompts, asked.spec_path, *sources]
    output = Path(asked.output)
    if asked.twin_ledger is not None:
        inputs += [asked.twin_ledger, keys_path(asked.twin_ledger)]
        if realpath(output) in (realpath(asked.twin_ledger), realpath(keys_path(asked.twin_ledger))):
            raise DyetraceError(f"{output} is where pairs of --twin-ledger go; choose another output")
    check_output(output, inputs=inputs, kind="a file of answers", is_kind=is_answers, force=asked.force)
    for beside in partial_paths(output):
        if any(source is not None and realpath(beside) == realpath(source) for source in inputs):
            raise DyetraceError(
                f"{beside} is read by this command and is where answers go first; choose another output"
            )


def _watermark(asked: Generate) -> tuple[WatermarkSpec | None, KeyRing | None]:
    """The watermark to mark with and its keys, or neither."""
    if asked.spec_path is None:
        if asked.placebo:
            raise DyetraceError("--placebo marks with a key that is derived from yours: give --spec and --key as well")
        if asked.key is not None:
            raise DyetraceError("--key needs --spec: without a spec nothing is marked")
        return None, None
    made = load_spec(asked.spec_path)
    accounts = () if asked.tenant is None else (asked.tenant,)
    if asked.key is None:
        raise DyetraceError("--spec needs --key")
    (ring,) = rings_of(asked.key, [made], accounts)
    return placebo(made, load_master(asked.key), accounts) if asked.placebo else (made, ring)


def _twins(asked: Generate) -> _Twins | None:
    """Where twins go, if they are wanted, checked as far as can be without making a file."""
    given = {"--twins": asked.twins, "--twin-ledger": asked.twin_ledger, "--twin-key": asked.twin_key}
    if all(value is None for value in given.values()):
        return None
    if asked.twins is None or asked.twin_ledger is None or asked.twin_key is None:
        lacking = ", ".join(name for name, value in given.items() if value is None)
        raise DyetraceError(f"--twins, --twin-ledger and --twin-key go together: {lacking} is missing")
    check_share(asked.twins)
    if asked.placebo:
        raise DyetraceError("--placebo makes answers that nobody is served, which need no twins; leave one of them out")
    secret, path = load_master(asked.twin_key), asked.twin_ledger
    if os.path.lexists(path):
        TwinLedger.open(path, secret).close()
    else:
        check_output(path)
        check_output(keys_path(path))
    return _Twins(path, secret, asked.twins)


@dataclass(slots=True)
class _Twins:
    """Where twins go, and how many went there."""

    path: Path
    secret: SecretKey
    share: float
    added: int = 0

    @property
    def on_record(self) -> dict[str, str]:
        """What of it decides the answers."""
        return {"twins": f"{self.share:g}", "twin_ledger": realpath(self.path), "twin_key": self.secret.fingerprint}

    @contextlib.contextmanager
    def opened(self, settings: dict[str, Any], engine: dict[str, str]) -> Iterator[Twinning]:
        """Write to the ledger in this block."""
        with TwinLedger.open(self.path, self.secret, write=True) as ledger:
            if ledger.unfinished:
                note(f"cut {ledger.unfinished:,} bytes of a pair that was not written to its end off {self.path}")
            before = ledger.count
            try:
                yield Twinning(ledger, self.secret, self.share, settings, engine)
            finally:
                self.added = ledger.count - before


@dataclass(frozen=True, slots=True)
class _Answering:
    """A checked run of `generate`, which needs nothing but its model."""

    folder: Path
    dtype: str
    prompts: list[str]
    sampling: Sampling
    spec: WatermarkSpec | None
    ring: KeyRing | None
    tenant: str | None
    chat: bool
    twins: _Twins | None = None

    @property
    def total(self) -> int:
        """How many answers there will be."""
        return len(self.prompts) * self.sampling.samples

    def run(self, write: Callable[[bytes], None], run: bytes | None = None, first: int = 0) -> None:
        """Answer batch after batch from number ``first`` on, and hand over the lines of each."""
        done = min(first * self.sampling.batch * self.sampling.samples, self.total)
        if done == self.total:
            return
        doing("loading the model")
        model, tokenizer = load_model(str(self.folder), self.dtype)
        if left := passed_over(model):
            asked = ", ".join(f"{name} {value}" for name, value in left.items())
            note(
                f"the model's generation_config.json asks for {clean(asked, 200)}: this is not followed, for answers "
                "are drawn by this command's own settings alone, which go on record with them"
            )
        doing("answering", done, self.total, "answers")
        marked = (self.sampling, self.spec, self.ring, self.tenant)
        with contextlib.ExitStack() as stack:
            twins = None if self.twins is None else stack.enter_context(self.twins.opened(*self._on_record()))
            for answers in generate_batches(
                model, tokenizer, self.prompts, *marked, chat=self.chat, run=run, first=first, twins=twins
            ):
                write(encode_answers(answers))
                done += len(answers)
                doing("answering", done, self.total, "answers")

    def _on_record(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What pairs say of how they were asked, and of what answered."""
        settings = {
            "model": self.folder.resolve().name,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "top_k": self.sampling.top_k,
            "max_tokens": self.sampling.max_new_tokens,
        }
        engine = {
            "name": "transformers",
            "transformers": version("transformers"),
            "torch": version("torch"),
            "dtype": self.dtype,
            "model_sha256": model_hash(self.folder),
        }
        return settings, engine if self.spec is None else {**engine, "spec_id": self.spec.spec_id}


def _to_standard_output(lines: bytes) -> None:
    if sys.stdout.isatty():
        rest()
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the command line has a line for that
    except OSError as error:
        raise MachineError(f"cannot write standard output: {error.strerror}") from None
