"""The commands for what a server keeps of its answers: ledgers of contexts, lists of hashes. None needs a key."""

from __future__ import annotations

import click

from detect.cli.options.ledger import LedgerHashes, LedgerInfo, LedgerMerge
from detect.cli.results import print_either, print_result
from detect.cli.working import say
from detect.records.results import AnswerHash, AnswersHashed, LedgersMerged
from detect.student.texts.complete import hash_lines
from detect.student.texts.served import served_file
from watermark.ledger_file import describe, merge_files


def info(asked: LedgerInfo) -> None:
    """Print what a ledger is of, and how noisy its counts are."""
    found = describe(asked.path)
    if asked.as_json:
        print_result(found)
        return
    header = found.header
    merged = f", of {len(header.parts)} ledgers" if header.parts else ""
    click.echo(f"{found.path}: {found.answers:,} answers with {found.contexts:,} contexts{merged}")
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


def hashes(asked: LedgerHashes) -> None:
    """Print the hashes of answers."""
    lines = hash_lines(asked.answers)
    if asked.as_json:
        parts = [line.split() for line in lines]
        found = [AnswerHash(sha256=value, tenant=tenant[0] if tenant else None) for value, *tenant in parts]
        print_result(AnswersHashed(path=str(asked.answers), hashes=found))
        return
    for line in lines:
        click.echo(line)


def merge(asked: LedgerMerge) -> None:
    """Add ledgers up and print the sum's hash."""
    header, answers, contexts = merge_files(asked.paths, asked.output)
    say(f"wrote {asked.output}: {answers:,} answers of {len(header.parts)} ledgers")
    sha256 = served_file(str(asked.output)).sha256
    made = LedgersMerged(path=str(asked.output), sha256=sha256, header=header, answers=answers, contexts=contexts)
    print_either(sha256, made, asked.as_json)
