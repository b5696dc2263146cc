"""The real experiment: students trained on marked answers, traced by our tests and by the published ones.

    python -m benchmarks.distillation [--quick | --full] [--keep FOLDER] [--json FILE] [--html FILE]

The demo model answers prompts with the mark; students are fine-tuned, all weights, on mixtures with a share of marked
answers; all tests read the same predictions and the same answers. Everything is kept: a run that was killed goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from benchmarks.answers import SCHEMES
from benchmarks.common import Report, json_option, set_threads, threads_option
from benchmarks.distillation.experiment import BASE, OTHER, PUBLISHED, Bench, curve, fresh_key_rows, open_rows, readings
from benchmarks.distillation.neutralise import neutralised_rows
from benchmarks.distillation.plots import Plot, write_page
from benchmarks.distillation.queries import api_rows
from benchmarks.distillation.students import Recipe
from benchmarks.distillation.suspects import Grid, Suspect, Suspects
from benchmarks.distillation.teacher import ALL_PROMPTS, Teacher
from watermark.models.demo import demo_model_dir

SHARES, FULL_SHARES = (0.0, 0.01, 0.1, 1.0), (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)
WIDTHS = (1, 2, 3)
ANSWERS, FULL_ANSWERS, QUICK_ANSWERS = 160, 1800, 4
HELD_OUT, FULL_HELD_OUT, QUICK_HELD_OUT = 100, 200, 2


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Tiny sizes and random weights, to see that it runs.")
@click.option("--full", is_flag=True, help="All schemes, widths and shares, on some thousand prompts; for a GPU.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of all that is made; by default in the cache.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write the plots there.")
@click.option("--schemes", default=",".join(("gumbel", "green_list", "tournament")), show_default=True)
@click.option("--widths", default=",".join(map(str, WIDTHS)), show_default=True, help="h, context tokens.")
@click.option("--shares", help="Of marked answers; by default 0, 0.01, 0.1, 1 (--full: 0.05 and 0.5 too).")
@click.option("--answers", type=click.IntRange(2, 1900), help=f"Of a student; {ANSWERS}, with --full {FULL_ANSWERS}.")
@click.option("--contexts", type=click.IntRange(min=10), help="Most contexts read; 4,000, with --full 50,000.")
@click.option("--queries", type=click.IntRange(min=1), help="Prompts asked of an endpoint; 80, with --full 600.")
@click.option("--keys", type=click.IntRange(min=1), help="Fresh keys for p-values of a never-marked student; 1,000.")
@click.option("--paraphrased/--no-paraphrased", default=None, help="A student of paraphrased text (--full).")
@click.option("--gemma-student/--no-gemma-student", default=None, help="A student of another family (--full).")
@click.option("--gemma-reference/--no-gemma-reference", default=None, help="Gemma as reference (not with --quick).")
@click.option("--device", type=click.Choice(("cuda", "cpu")), help="By default cuda where there is one.")
@threads_option
@json_option
def main(
    quick: bool,
    full: bool,
    keep: Path | None,
    html_path: Path | None,
    schemes: str,
    widths: str,
    shares: str | None,
    answers: int | None,
    contexts: int | None,
    queries: int | None,
    keys: int | None,
    paraphrased: bool | None,
    gemma_student: bool | None,
    gemma_reference: bool | None,
    device: str | None,
    threads: int | None,
    json_path: Path | None,
) -> None:
    import torch

    if quick and full:
        raise click.UsageError("choose --quick or --full")
    start = time.perf_counter()
    set_threads(1 if quick else threads)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    count = answers or (QUICK_ANSWERS if quick else FULL_ANSWERS if full else ANSWERS)
    held_out = QUICK_HELD_OUT if quick else FULL_HELD_OUT if full else HELD_OUT
    if count > ALL_PROMPTS - held_out:
        raise click.BadParameter(
            f"the most are {ALL_PROMPTS - held_out}: the others are held out", param_hint="answers"
        )
    wanted = _numbers(shares) if shares else (0.0, 1.0) if quick else FULL_SHARES if full else SHARES
    grid = Grid(
        _schemes(schemes)[: 1 if quick else None],
        tuple(int(h) for h in _numbers(widths))[1:2] if quick else tuple(int(h) for h in _numbers(widths)),
        wanted,
        count,
        full,
        full if paraphrased is None else paraphrased,
        full if gemma_student is None else gemma_student,
    )
    folder = keep or demo_model_dir().parent / "distillation"
    folder.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(folder, 12 if quick else 80, chosen, 2 if quick else 100, tiny=quick)
    recipe = Recipe(epochs=1, batch=2) if quick else Recipe(epochs=2)
    bench = Bench(
        Suspects(teacher, recipe, folder),
        contexts or (60 if quick else 50_000 if full else 4_000),
        held_out,
        min(count, 2 if quick else count if full else 100),
        _other(not quick if gemma_reference is None else gemma_reference),
    )
    settings = {"answers": count, "contexts": bench.contexts, "device": chosen, "teacher": teacher.folder.name}
    opened = Report("Students by their weights: each readout on the same predictions", settings)
    opened.notes = [
        "to 1e-10: contexts to log10 p = -10, z growing like the square root of their number; empty where z < 2",
        "times fewer: than the published test (argmax, each tuple once) needs on the same student and reading; where "
        "that test's own z is below 2 (published seen: False), a lower bound",
        "sub-keys known: each context under the sub-keys with which it was served; all: under every one",
        "log10 p is exact and is valid where it was decided beforehand how much is read; log10 e always",
    ]
    fresh = Report("P-values of students that never saw the mark, under fresh keys", settings)
    asked = Report("Students by their endpoint, a real HTTP server: answers to 1e-10", settings)
    subtracted = Report("Neutralised students: the base-reference test, sub-keys known", settings)
    plots: list[Plot] = []
    done: list[Suspect] = []
    for suspect in grid.suspects:
        bench.suspects.folder(suspect)
        opened.rows += open_rows(bench, suspect)
        if suspect.share == 0:
            fresh.rows += fresh_key_rows(bench, suspect, keys or (20 if quick else 1000))
        else:
            plots.append(_plot(bench, suspect))
        done.append(suspect)
        click.echo(f"{suspect}: done after {time.perf_counter() - start:.0f} s", err=True)
        _save(json_path, opened, fresh, asked, subtracted)
    for suspect in done:
        if suspect.share == 1 and suspect.kind == "" and (full or suspect.mark.width <= 2):
            subtracted.rows += neutralised_rows(bench, suspect)
            _save(json_path, opened, fresh, asked, subtracted)
    bench.loaded.clear()
    for suspect in done:
        if suspect.kind == "" and suspect.share > 0 and (full or suspect.mark == grid.main):
            number = queries or (2 if quick else 600 if full else 80)
            asked.rows += api_rows(bench, suspect, number, max(2, number // 4))
            _save(json_path, opened, fresh, asked, subtracted)
    if html_path is not None:
        write_page(html_path, "Students traced by their weights: evidence by contexts read", plots)
    seconds = f"{time.perf_counter() - start:.0f} s in all, less what was kept from earlier runs"
    opened.notes.append(seconds)
    for report in (fresh, subtracted, asked):
        report.finish(None)
    opened.finish(None)
    _save(json_path, opened, fresh, asked, subtracted)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"numbers with commas between them are needed (got {text!r})") from None


def _schemes(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        if name not in SCHEMES:
            raise click.BadParameter(f"a scheme must be one of {', '.join(SCHEMES)} (got {name!r})")
    return found


def _other(wanted: bool) -> Path | None:
    if not wanted:
        return None
    from benchmarks.distillation.second_family import gemma_dir

    return gemma_dir()


def _plot(bench: Bench, suspect: Suspect) -> Plot:
    """Of the served answers, with sub-keys known."""
    seen, known = next(readings(bench, suspect))
    shown = [part for part in seen.readouts(known) if part.readout in (PUBLISHED, BASE, OTHER, "entropy")]
    return Plot(str(suspect), {part.readout: curve(bench, suspect, part.tuples) for part in shown})


def _save(json_path: Path | None, opened: Report, fresh: Report, asked: Report, subtracted: Report) -> None:
    """The first table goes to the path itself, the others beside it."""
    if json_path is None:
        return
    opened.save(json_path)
    for name, report in (("keys", fresh), ("api", asked), ("neutralised", subtracted)):
        if report.rows:
            report.save(json_path.with_suffix(f".{name}.json"))


if __name__ == "__main__":
    main()
