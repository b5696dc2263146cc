"""The commands that trace the mark into a student model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detect.cli.common import (
    EXIT_FOUND,
    commitment_on_record,
    decoy_count,
    decoy_public_seed,
    fail_when_found,
    load_ring,
    model_folder,
    option,
    read_names,
    say,
    tenant_names,
    tenants_in_file,
    tested_key,
)
from watermark.errors import DyetraceError


@click.group()
def trace() -> None:
    """Prove that a model was trained on marked outputs: from its weights, or through its endpoint.

    \b
    dyetrace trace weights ./suspect --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
    """


_spec = option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark to look for.  [e.g. --spec spec.json]",
)
_output = option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the report.  [e.g. -o evidence/]"
)
_tokenizer = option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default the demo model's.  [e.g. --tokenizer ./my-model]",
)
_alpha = option(
    "--alpha",
    type=float,
    default=1e-6,
    help="Family-wise false-positive rate of 'found', over all keys.  [e.g. --alpha 1e-3]",
)
_sided = option("--two-sided", is_flag=True, help="Also see a mark that was subtracted too far.  [e.g. --two-sided]")
_pdf = option("--pdf/--no-pdf", default=True, help="Write report.pdf as well.  [e.g. --no-pdf]")
_json = option("--json", "as_json", is_flag=True, help="Print the record as JSON on standard output.  [e.g. --json]")


def _share_of(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> list[tuple[Path, float]]:
    """DIR=SHARE pairs."""
    found = []
    for value in values:
        folder, separator, share = value.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            separator = ""
        if not separator or not 0 <= number <= 1:
            raise DyetraceError(f"--calibrate takes DIR=SHARE with a share from 0 to 1 (got {value!r})")
        found.append((Path(folder), number))
    return found


@trace.command()
@click.argument("model_dir", metavar="MODEL_DIR", type=click.Path(path_type=Path))
@option(
    "--read",
    "texts",
    required=True,
    multiple=True,
    help="What the suspect reads: your served answers (JSONL of `dyetrace generate`) or other text; may be repeated.  "
    "[e.g. --read answers.jsonl]",
)
@_spec
@tested_key
@_output
@option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A model to compare with: the suspect's base model, an earlier checkpoint, or any other; may be repeated.  "
    "[e.g. --reference ./base]",
)
@option(
    "--control",
    "controls",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A model known not to have seen the mark, tested the same way.  [e.g. --control ./clean]",
)
@option(
    "--calibrate",
    "calibration",
    multiple=True,
    callback=_share_of,
    help="A student that you trained on a known marked share, as DIR=SHARE; two or more give the suspect's share.  "
    "[e.g. --calibrate ./tenth=0.1]",
)
@option(
    "--served",
    help="Served answers: contexts that stand in more of them weigh more in unmarked readings.  "
    "[e.g. --served answers.jsonl]",
)
@option("--read-tenant", help="Read only the answers made for this account.  [e.g. --read-tenant acme]")
@tenant_names
@tenants_in_file
@option(
    "--readout",
    type=click.Choice(["argmax", "mass", "entropy", "log", "reference"]),
    help="How predictions become weights; by default reference, or entropy without one.  [e.g. --readout entropy]",
)
@option(
    "--contexts",
    type=click.IntRange(1),
    default=50_000,
    help="Most distinct contexts to read in each text.  [e.g. --contexts 5000]",
)
@_tokenizer
@_alpha
@_sided
@decoy_count
@decoy_public_seed
@commitment_on_record
@option(
    "--dtype",
    default="bfloat16",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Number format that models run in.  [e.g. --dtype float32]",
)
@_pdf
@_json
@fail_when_found
def weights(
    model_dir: Path,
    texts: tuple[str, ...],
    spec_path: Path,
    key: str,
    output: Path,
    references: tuple[Path, ...],
    controls: tuple[Path, ...],
    calibration: list[tuple[Path, float]],
    served: str | None,
    read_tenant: str | None,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    readout: Any,
    contexts: int,
    tokenizer: str | None,
    alpha: float,
    two_sided: bool,
    decoys: int,
    decoy_seed: str,
    commitment_path: Path | None,
    dtype: str,
    pdf: bool,
    as_json: bool,
    fail: bool,
) -> None:
    """Trace a suspect whose weights are in MODEL_DIR. A trace that was stopped goes on when the same command is given
    again.

    \b
    Example: dyetrace trace weights ./suspect --reference ./base --read answers.jsonl \\
                 --spec spec.json --key file:owner.key -o evidence/
    """
    from detect.student.evidence import TraceSettings
    from detect.student.open_weights import WeightsJob, trace_weights
    from watermark.commitment import load_commitment
    from watermark.spec import load_spec

    made = load_spec(spec_path)
    commitment = None if commitment_path is None else load_commitment(commitment_path)
    ring = load_ring(key, made, (*tenants, *read_names(tenants_file)))
    job = WeightsJob(
        student=model_dir,
        texts=texts,
        references=references,
        controls=controls,
        calibration=calibration,
        served=served,
        tenant=read_tenant,
        contexts=contexts,
        readout=readout,
        dtype=dtype,
        settings=TraceSettings(alpha, "two-sided" if two_sided else "upper", decoys, decoy_seed),
    )
    arguments = {
        "model": str(model_dir),
        "read": list(texts),
        "references": [str(path) for path in references],
        "controls": [str(path) for path in controls],
        "calibrate": [f"{path}={share}" for path, share in calibration],
        "served": served,
        "read_tenant": read_tenant,
        "tenants": list(ring.tenants),
        "readout": readout,
        "contexts": contexts,
        "decoys": decoys,
        "dtype": dtype,
    }
    with _Bars() as bars:
        record = trace_weights(
            job,
            made,
            ring,
            tokenizer or model_folder(None),
            output,
            commitment=commitment,
            arguments=arguments,
            progress=bars,
        )
    publish(record, output, pdf, as_json)
    if fail and record.found:
        click.get_current_context().exit(EXIT_FOUND)


def publish(record: Any, output: Path, pdf: bool, as_json: bool) -> None:
    """Write the pages of a trace's report and show it."""
    from detect.report.trace_html import render_trace_html
    from watermark.files import write_atomically

    write_atomically(output / "report.html", render_trace_html(record).encode())
    written = ["report.json", "report.html"]
    if pdf:
        from detect.report.trace_pdf import render_trace_pdf

        write_atomically(output / "report.pdf", render_trace_pdf(record))
        written.append("report.pdf")
    say(f"wrote {', '.join(written)} and evidence.npz to {output}")
    if as_json:
        click.echo((output / "report.json").read_bytes().decode(), nl=False)
        return
    from rich.console import Console

    from detect.report.trace_terminal import print_trace

    print_trace(record, Console())


class _Bars:
    """A progress bar for each model and text on stderr, shown to people; a line when each is done, for logs."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._shown = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._shown)
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done)
        if done == total and not self._shown:
            say(f"{what}: {total:,} positions")

    def __enter__(self) -> _Bars:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
