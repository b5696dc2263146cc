"""Twins regenerated under another law than the served answers: what the law test says, and who is found.

    python -m benchmarks.twins.law draw score judge --keep FOLDER

Served answers are of T = 0.8 and top-p 0.95. Their twins are drawn again with one thing changed at a time. Suspects
that never saw a served answer must be found under no such change, whether the law test refuses or allows for a bias;
and the table says what is left of a real student.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.distillation.second_family import gemma_dir
from benchmarks.twins.material import Material, owner_folder, texts_of
from benchmarks.twins.students import Training, student
from detect.twins.bets import bets
from detect.twins.controls import OWNER_NUMBERS, law_controls
from detect.twins.law import flat, law_test
from detect.twins.measures.weights import Reader, covariates
from watermark.files.writing import write_atomically
from watermark.generate import Answer, Sampling, generate_batches
from watermark.models.folder import load_model
from watermark.twins.pair import Pair, TwinAnswer

F64 = npt.NDArray[np.float64]

PAIRS = 200
_BATCH = 40
_TOGETHER = 10
_FEWEST = 60  # pairs, below which nothing is said
_TARGET = 6.0
_OTHER_SYSTEM = "You are a careful teacher. Give short answers in simple words."


@dataclass(frozen=True)
class Change:
    """How twins are drawn otherwise than the served answers were.

    Attributes
    ----------
    dtype, bits
        Arithmetic of the owner's model, and bits that its weights are rounded to, by rows; 0 for as they are.
    system
        A system prompt in place of the template's own.
    steps
        Whether the model has been trained a little further on other answers.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    dtype: str = "bfloat16"
    bits: int = 0
    system: str | None = None
    later: bool = False


CHANGES = {
    "none": Change(),
    "T + 0.02": Change(temperature=0.82),
    "T + 0.05": Change(temperature=0.85),
    "T + 0.1": Change(temperature=0.9),
    "T + 0.2": Change(temperature=1.0),
    "top-p 0.9": Change(top_p=0.9),
    "top-p 1.0": Change(top_p=1.0),
    "float32": Change(dtype="float32"),
    "8-bit weights": Change(bits=8),
    "4-bit weights": Change(bits=4),
    "system prompt": Change(system=_OTHER_SYSTEM),
    "later checkpoint": Change(later=True),
    "T - 0.05": Change(temperature=0.75),
}


@dataclass(frozen=True)
class Bench:
    """One seed's served answers, and all that is drawn and read beside them, kept in a folder."""

    keep: Path
    seed: int = 0

    @cached_property
    def material(self) -> Material:
        """The served answers and what innocents learn from."""
        return Material(self.keep, self.seed, owner_folder())

    def twins(self, name: str) -> list[Answer]:
        """Twins of the first `PAIRS` served answers under a change; drawn where they are not there yet."""
        path = self.keep / "law" / f"twins-{slug(name)}-seed{self.seed}.jsonl"
        if not path.exists():
            started = time.monotonic()
            made = self._draw(CHANGES[name], sum(name.encode()) * 100 + self.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, b"".join(msgspec.json.encode(answer) + b"\n" for answer in made))
            click.echo(f"{path.name}: {time.monotonic() - started:.0f} s", err=True)
        return [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]

    def _draw(self, change: Change, seed: int) -> list[Answer]:
        folder = self._later() if change.later else self.material.folder
        model, tokenizer = load_model(folder, change.dtype)
        if change.bits:
            round_weights(model, change.bits)
        sampling = Sampling(
            temperature=change.temperature, top_p=change.top_p, max_new_tokens=64, batch=_BATCH, seed=seed
        )
        asked, chat = self.material.asked[:PAIRS], True
        if change.system is not None:
            asked, chat = [with_system(tokenizer, change.system, prompt) for prompt in asked], False
        return [answer for batch in generate_batches(model, tokenizer, asked, sampling, chat=chat) for answer in batch]

    def _later(self) -> Path:
        """The owner's model after one epoch on other answers of its own."""
        training = Training(epochs=1, rate=3e-4)
        return student(self.keep / "law", "later", self.material.folder, texts_of(self.material.elsewhere), training)


def with_system(tokenizer: Any, system: str, prompt: str) -> str:
    """A chat with a system prompt, as the model reads it."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def round_weights(model: Any, bits: int) -> None:
    """Round each row of each linear layer of the blocks to so many bits, evenly up to its largest absolute weight."""
    import torch

    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
                weight = module.weight.float()
                step = weight.abs().amax(dim=1, keepdim=True) / most
                module.weight.copy_(torch.round(weight / step) * step)


def slug(name: str) -> str:
    """For names of files."""
    return name.replace(" + ", "+").replace(" - ", "-").replace(" ", "-")


SERVED = "served"
SUSPECTS = ("base", "gemma-base", "others", "gemma-others", "plain", "gemma", "paraphrased")
INNOCENT = ("base", "gemma-base", "others", "gemma-others")


def readings(bench: Bench, suspect: str, names: Sequence[str]) -> dict[str, F64]:
    """Means over the tokens of each text of some sets, under a suspect: (n, `OWNER_NUMBERS`) by the sets' names.

    Those of anybody but the owner's model have the first number alone. `_TOGETHER` prompts at a time are kept, so that
    a killed run goes on where it was.
    """
    parts: dict[str, list[F64]] = {name: [] for name in names}
    reader: Reader | None = None
    for start in range(0, PAIRS, _TOGETHER):
        paths = {name: _part(bench, suspect, name, start) for name in names}
        if lacking := [name for name in names if not paths[name].exists()]:
            reader = reader or Reader.load(_folder(bench, suspect))
            sets = [bench.material.served if name == SERVED else bench.twins(name) for name in lacking]
            sides = [[answers[i].text for answers in sets] for i in range(start, start + _TOGETHER)]
            pairs = bench.material.pairs[start : start + _TOGETHER]
            found = _read(reader, pairs, sides, whole=suspect == "base")
            for place, name in enumerate(lacking):
                data = io.BytesIO()
                np.save(data, found[:, place])
                write_atomically(paths[name], data.getvalue())
        for name in names:
            parts[name].append(np.load(paths[name]))
    return {name: np.concatenate(some) for name, some in parts.items()}


def _part(bench: Bench, suspect: str, name: str, start: int) -> Path:
    return bench.keep / "law" / "read" / f"{suspect}-{slug(name)}-seed{bench.seed}-{start:04d}.npy"


def read_already(bench: Bench, suspect: str, name: str) -> F64:
    """What `readings` has kept so far of a set: a first part of it."""
    paths = [_part(bench, suspect, name, start) for start in range(0, PAIRS, _TOGETHER)]
    there = list(itertools.takewhile(Path.exists, paths))
    return np.concatenate([np.load(path) for path in there]) if there else np.zeros((0, 1))


def _read(reader: Reader, pairs: Sequence[Pair], texts: Sequence[Sequence[str]], *, whole: bool) -> F64:
    """`token_means` of several answers to each prompt, which is read once: shape (n, answers, numbers)."""
    import torch

    network = reader._network
    found = np.zeros((len(pairs), len(texts[0]), len(OWNER_NUMBERS) if whole else 1))
    for i, (pair, answers) in enumerate(zip(pairs, texts, strict=True)):
        rows = [reader.tokens(pair, text) for text in answers]
        first = min(row.first for row in rows if row.first)
        assert all((row.ids[:first] == rows[0].ids[:first]).all() for row in rows if row.first)
        width = max(len(row.ids) for row in rows) - first
        ids, mask = torch.zeros((len(rows), width), dtype=torch.long), torch.ones((len(rows), first + width))
        for row, tokens in enumerate(rows):
            own = tokens.ids[first:] if tokens.first else tokens.ids[:0]
            ids[row, : len(own)] = torch.from_numpy(own)
            mask[row, first + len(own) :] = 0
        with torch.inference_mode():
            start = network(torch.from_numpy(rows[0].ids[None, :first]), use_cache=True, logits_to_keep=1)
            start.past_key_values.batch_repeat_interleave(len(rows))
            rest = network(ids, attention_mask=mask.long(), cache=start.past_key_values).logits
            logits = torch.cat([start.logits.expand(len(rows), 1, -1), rest[:, :-1]], 1)
            for row, tokens in enumerate(rows):
                if not tokens.first:
                    continue
                own = tokens.first - first, len(tokens.ids) - first
                logs = logits[row, own[0] : own[1]].float()
                logs -= logs.logsumexp(-1, keepdim=True)
                said = logs.gather(1, ids[row, own[0] : own[1], None])
                numbers = [said]
                if whole:
                    rank = (logs > said).sum(-1, keepdim=True)
                    numbers += [rank == 0, -(logs.exp() * logs).sum(-1, keepdim=True), rank.log1p()]
                found[i, row] = torch.cat([number.double() for number in numbers], 1).mean(0).numpy()
    return found


def _folder(bench: Bench, suspect: str) -> Path:
    if suspect == "base":
        return bench.material.folder
    if suspect == "gemma-base":
        return gemma_dir()
    return Path((bench.keep / f"seed{bench.seed}" / f"{suspect}.folder").read_text().strip())


def regenerated(bench: Bench, name: str, n: int) -> list[Pair]:
    """The first pairs of served answers and their twins under a change."""
    setting = bench.material.setting

    def side(answer: Answer) -> TwinAnswer:
        cut = len(answer.token_ids) >= setting.tokens
        return TwinAnswer(text=answer.text, token_ids=answer.token_ids, finish_reason="length" if cut else "stop")

    rows = zip(bench.material.pairs, bench.material.served, bench.twins(name), strict=False)
    return [
        msgspec.structs.replace(pair, answers=(side(served), side(twin)), served=0, level="regenerated", proof=None)
        for pair, served, twin in itertools.islice(rows, n)
    ]


def judge(bench: Bench, name: str) -> dict[str, Any] | None:
    """What the law test says of a change, and what becomes of each suspect that has read enough."""
    owner, other = _differences(bench, "base", name), _differences(bench, "gemma-base", name)
    n = min(len(owner), len(other))
    if n < _FEWEST:
        return None
    pairs = regenerated(bench, name, n)
    turns = np.array([float(pair.sign) for pair in pairs])  # served first -> first side first
    own = covariates(pairs)
    lengths = np.array([len(a.token_ids or ()) - len(b.token_ids or ()) for a, b in (pair.sides for pair in pairs)])
    own = np.column_stack([own, owner[:n, 0] * turns, lengths])
    unrelated = other[:n, 0] * turns
    controls = law_controls(pairs, owner[:n] * turns[:, None], {"gemma": unrelated}, own)
    law = law_test(controls, bets=n)
    signs = np.array([pair.sign for pair in pairs], dtype=np.int8)
    beside = np.column_stack([own, unrelated])
    found = {}
    for suspect in SUSPECTS:
        x = _differences(bench, suspect, name)[:, 0]
        m = min(n, len(x))
        if m < _FEWEST:
            continue
        turned = x[:m] * turns[:m]
        unaware = bets(turned[:, None], signs[:m], own[:m]).log10_evalues.max()
        aware = bets(flat(turned[:, None], beside[:m]), signs[:m], bias=law.bias).log10_evalues.max()
        found[suspect] = {
            "pairs": m,
            "wins": int((x[:m] > 0).sum()),
            "log10 e without a law test": round(float(unaware), 2),
            "log10 e": None if law.veto is not None else round(float(aware), 2),
            "found": law.veto is None and aware >= _TARGET,
        }
    return {"change": name, "pairs": n, "law": msgspec.to_builtins(law), "suspects": found}


def _differences(bench: Bench, suspect: str, name: str) -> F64:
    """Served less twin, as far as both were read: (n, numbers)."""
    served, twin = read_already(bench, suspect, SERVED), read_already(bench, suspect, name)
    n = min(len(served), len(twin))
    found: F64 = served[:n] - twin[:n]
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """The same as Markdown: for each suspect wins, and log10 e without and with the law test."""
    head = ["twins drawn with", "pairs", "law test", *SUSPECTS]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for one in found:
        law = one["law"]
        says = "veto" if law["veto"] is not None else f"bias {law['bias']:.2f}"
        cells = []
        for suspect in SUSPECTS:
            if (of := one["suspects"].get(suspect)) is None:
                cells.append("")
                continue
            aware = "refused" if of["log10 e"] is None else f"{of['log10 e']:.1f}{' found' if of['found'] else ''}"
            cells.append(f"{of['wins']} of {of['pairs']}; {of['log10 e without a law test']:.1f} -> {aware}")
        lines.append(f"| {one['change']} | {one['pairs']} | {says} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("stages", nargs=-1, type=click.Choice(["draw", "read", "judge"]))
@click.option("--keep", type=click.Path(path_type=Path), default=Path("/tmp/twins"), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="Changes by name; all by default.")
@click.option("--suspect", "suspects", multiple=True, type=click.Choice(SUSPECTS), default=SUSPECTS)
def main(stages: Sequence[str], keep: Path, seed: int, only: Sequence[str], suspects: Sequence[str]) -> None:
    """Draw twins under other laws, read them with innocents and students, and judge them."""
    bench = Bench(keep, seed)
    names = list(only or CHANGES)
    if "draw" in stages:
        for name in names:
            bench.twins(name)
    if "read" in stages:
        for suspect in suspects:
            readings(bench, suspect, [SERVED, *names])
    if "judge" in stages:
        found = [one for name in names if (one := judge(bench, name)) is not None]
        write_atomically(keep / "law" / f"judged-seed{seed}.json", msgspec.json.encode(found))
        click.echo(table(found))


if __name__ == "__main__":
    main()
