"""The commands for what a server keeps of its answers: ledgers of contexts, lists of hashes. None needs a key."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.common import option, say
from detect.cli.results import json_option, print_result


@click.group()
def ledger() -> None:
    """Look into ledgers of served contexts, which servers write and traces read, and add them up.

    \b
    Example: dyetrace ledger merge server-*.ledger -o served.ledger
             dyetrace ledger info served.ledger
    """


@ledger.command()
@click.argument("path", metavar="LEDGER", type=click.Path(path_type=Path))
@json_option
def info(path: Path, as_json: bool) -> None:
    """Say what LEDGER is of, how much it has counted and how noisy its counts are by now; no key is needed.

    \b
    Example: dyetrace ledger info served.ledger
    """
    from detect.records.results import LedgerDescribed
    from watermark.ledger_file import describe

    found = describe(path)
    header = found.header
    if as_json:
        print_result(
            LedgerDescribed(
                path=str(path),
                header=header,
                megabytes=found.megabytes,
                answers=found.answers,
                contexts=found.contexts,
                used=found.used,
                noise_mean=found.noise_mean,
                noise_median=found.noise_median,
                noise_95=found.noise_95,
            )
        )
        return
    merged = f", of {len(header.parts)} ledgers" if header.parts else ""
    click.echo(f"{path}: {found.answers:,} answers with {found.contexts:,} contexts{merged}")
    click.echo(f"spec {header.spec_id}, key {header.key_fingerprint}")
    click.echo(
        f"{found.megabytes:g} MB: {header.rows} rows of {header.width:,} counters, {found.used:.1%} of them used"
    )
    click.echo(
        f"a context never served reads {found.noise_mean:.2g} on average (median {found.noise_median:g}, "
        f"95% below {found.noise_95 + 1:g}); served ones read too high by about as much, never too low"
    )
    if found.noise_median >= 1:
        click.echo("more than half of the contexts that were never served look served: make the next ledger larger")


@ledger.command()
@click.argument("answers", metavar="ANSWERS", type=click.Path(path_type=Path))
@json_option
def hashes(answers: Path, as_json: bool) -> None:
    """Print a SHA-256 for each of the served ANSWERS (JSONL), with its account: a list to keep when they are served,
    by which a trace shows that it read all of them (--complete). It holds no text.

    \b
    Example: dyetrace ledger hashes answers.jsonl > served.sha256
    """
    from detect.records.results import AnswerHash, AnswersHashed
    from detect.student.texts.complete import hash_lines

    lines = hash_lines(answers)
    if as_json:
        parts = [line.split() for line in lines]
        found = [AnswerHash(sha256=value, tenant=tenant[0] if tenant else None) for value, *tenant in parts]
        print_result(AnswersHashed(path=str(answers), hashes=found))
        return
    for line in lines:
        click.echo(line)


@ledger.command()
@click.argument("paths", metavar="LEDGER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The new ledger; an existing file is never overwritten.  [e.g. -o served.ledger]",
)
@json_option
def merge(paths: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Add up the ledgers of several servers of one spec, key and size, and print the new one's SHA-256; no key is
    needed, and servers may go on.

    \b
    Example: dyetrace ledger merge server-1.ledger server-2.ledger -o served.ledger
    """
    from detect.records.results import LedgersMerged
    from detect.student.texts.served import served_file
    from watermark.ledger_file import describe, merge_files

    merge_files(paths, output)
    found = describe(output)
    say(f"wrote {output}: {found.answers:,} answers of {len(found.header.parts)} ledgers")
    sha256 = served_file(str(output)).sha256
    if not as_json:
        click.echo(sha256)
        return
    print_result(
        LedgersMerged(
            path=str(output), sha256=sha256, header=found.header, answers=found.answers, contexts=found.contexts
        )
    )
