"""The commands for private ledgers of twins: what they hold, commitments to them, what experts are shown, erasure."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import click

from detect.cli.options.twins import TwinsCommit, TwinsErase, TwinsExport, TwinsInfo, TwinsReveal, TwinsVerify
from detect.cli.results import print_either, print_result
from detect.cli.working import say
from detect.records.results import (
    AccountPairs,
    ErasedPart,
    RevealChecked,
    TwinsCommitted,
    TwinsErased,
    TwinsExported,
    TwinsRevealed,
    TwinsTold,
)
from detect.records.written import clean, counted
from watermark.commitment import write_commitment
from watermark.errors import DyetraceError, EvidenceError, refused_write
from watermark.files.writing import check_output, move_new, write_private
from watermark.interruption import unwinding
from watermark.keys import SecretKey, load_master, source_path
from watermark.twins.commitment import (
    commit_twins,
    encode_reveal,
    load_reveal,
    load_twin_commitment,
    load_twin_opening,
    reveal_twins,
    verify_reveal,
)
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger, canonical


def info(asked: TwinsInfo) -> None:
    """Print what a ledger holds."""
    secret = None if asked.twin_key is None else load_master(asked.twin_key)
    with _opened(asked.path, secret) as ledger:
        accounts = None
        if secret is not None:
            found = sorted(ledger.accounts().items(), key=lambda one: (-one[1], one[0] or ""))
            accounts = [AccountPairs(account=name, pairs=count) for name, count in found]
        told = TwinsTold(
            path=str(ledger.path),
            identity=ledger.header.identity,
            key_fingerprint=ledger.key_fingerprint,
            created=ledger.header.created,
            pairs=ledger.count,
            erased=ledger.erased,
            levels=ledger.levels,
            months=ledger.months,
            accounts=accounts,
            unfinished_bytes=ledger.unfinished,
            head=ledger.head,
            root=ledger.root(),
        )
    if asked.as_json:
        print_result(told)
        return
    gone = f", {told.erased:,} of them erased" if told.erased else ""
    pairs = counted(told.pairs, "pair") + gone
    click.echo(f"{told.path}: {pairs}; twin key {told.key_fingerprint}, made {clean(told.created)}")
    click.echo(f"by level: {_counts(told.levels)}")
    click.echo(f"by month: {_counts(told.months)}")
    if accounts is not None:
        click.echo(f"by account: {_counts({_named(one.account): one.pairs for one in accounts})}")
    click.echo(f"head {told.head}")
    click.echo(f"root {told.root}")


def commit(asked: TwinsCommit) -> None:
    """Write a commitment to a ledger, and its opening."""
    check_output(asked.output, inputs=_read_by(asked.path, asked.twin_key))
    secret = load_master(asked.twin_key)
    with _opened(asked.path, secret) as ledger:
        public, opening = commit_twins(ledger, secret)
    beside = write_commitment(asked.output, public, opening)
    say(
        f"wrote {asked.output} (publish it) and {beside} (keep it with the key): root {public.root} of {public.pairs:,}"
    )
    made = TwinsCommitted(
        path=str(asked.output),
        opening_path=str(beside),
        root=public.root,
        pairs=public.pairs,
        key_fingerprint=public.key_fingerprint,
        coin_sha256=public.coin_sha256,
        created=public.created,
    )
    print_either(public.root, made, asked.as_json)


def reveal(asked: TwinsReveal) -> None:
    """Write some pairs whole, with their ways to the root."""
    check_output(asked.output, inputs=[*_read_by(asked.path, asked.twin_key), asked.commitment_path])
    secret = load_master(asked.twin_key)
    commitment = None if asked.commitment_path is None else load_twin_commitment(asked.commitment_path)
    with _opened(asked.path, secret) as ledger:
        shown = reveal_twins(ledger, asked.ids, commitment)
    data = encode_reveal(shown)
    write_private(asked.output, data)
    say(f"wrote {asked.output}: {counted(len(shown.revealed), 'pair')} of {shown.pairs:,}; {_SECRET}")
    made = TwinsRevealed(
        path=str(asked.output),
        sha256=hashlib.sha256(data).hexdigest(),
        root=shown.root,
        pairs=shown.pairs,
        revealed=len(shown.revealed),
    )
    print_either(made.sha256, made, asked.as_json)


def verify(asked: TwinsVerify) -> None:
    """Check what an expert was shown."""
    shown, commitment = load_reveal(asked.path), load_twin_commitment(asked.commitment_path)
    opening = None if asked.opening_path is None else load_twin_opening(asked.opening_path)
    failed = None
    try:
        verify_reveal(shown, commitment, opening)
    except EvidenceError as error:
        failed = error
    later = sum(one.pair.level == "regenerated" for one in shown.revealed)
    if asked.as_json:
        print_result(
            RevealChecked(
                path=str(asked.path),
                holds=failed is None,
                reason=None if failed is None else str(failed),
                revealed=len(shown.revealed),
                regenerated=later,
                pairs=commitment.pairs,
                root=commitment.root,
                coins_tossed_anew=opening is not None,
            )
        )
    if failed is not None:
        raise failed
    if not asked.as_json:
        pairs = counted(len(shown.revealed), "pair")
        click.echo(f"it holds: {pairs} of the {commitment.pairs:,} that were committed to")
    if later:
        say(f"twins that were drawn later, which have no coin to check: {later:,}")
    if opening is None:
        say(
            "Each was served as its coin's proof says. That the proofs are of the committed coin key shows with "
            "--opening alone."
        )


def export(asked: TwinsExport) -> None:
    """Write pairs in clear."""
    check_output(asked.output, inputs=_read_by(asked.path, asked.twin_key))
    secret = load_master(asked.twin_key)
    digest, count = hashlib.sha256(), 0
    with _opened(asked.path, secret) as ledger:

        def lines() -> Iterator[bytes]:
            nonlocal count
            for pair in ledger.pairs():
                if asked.account is None or pair.account == asked.account:
                    line = canonical(pair) + b"\n"
                    digest.update(line)
                    count += 1
                    yield line

        _write_lines(asked.output, lines())
        erased = ledger.erased
    say(f"wrote {asked.output}: {counted(count, 'pair')} in clear; {_SECRET}")
    made = TwinsExported(
        path=str(asked.output), sha256=digest.hexdigest(), pairs=count, account=asked.account, erased=erased
    )
    print_either(made.sha256, made, asked.as_json)


def erase(asked: TwinsErase) -> None:
    """Erase pairs by account or by date, once this was confirmed."""
    before = None if asked.older is None else _date(asked.older)
    with _opened(asked.path, load_master(asked.twin_key)) as ledger:
        lost = ledger.erasable(asked.account, before)
        for (account, month), count in sorted(lost.parts.items(), key=lambda one: (one[0][1], one[0][0] or "")):
            say(f"{month}, {_named(account)}: {counted(count, 'pair')}")
        if not lost.pairs:
            say("there is nothing to erase: pairs are kept by month, and a month goes as a whole when it is over")
        elif not asked.yes:
            _confirm(f"Erase {counted(lost.pairs, 'pair')} for good? Nobody can ever read or use them again")
        if lost.pairs:
            lost = ledger.erase(asked.account, before)
        told = TwinsErased(
            path=str(asked.path),
            pairs=lost.pairs,
            parts=[ErasedPart(account=name, month=month, pairs=n) for (name, month), n in lost.parts.items()],
            left=ledger.count - ledger.erased,
        )
    if lost.pairs:
        say(
            f"erased {counted(lost.pairs, 'pair')}; delete older copies of {keys_path(asked.path)} from backups as well"
        )
    print_either(f"{told.pairs}", told, asked.as_json)


_SECRET = "withheld twins must never be published or served, or the pairs are worth nothing"


@contextlib.contextmanager
def _opened(path: Path, secret: SecretKey | None) -> Iterator[TwinLedger]:
    with TwinLedger.open(path, secret) as ledger:
        if ledger.unfinished:
            say(
                f"the last {ledger.unfinished:,} bytes of {path} are of a pair that was not written to its end: they "
                "are passed over, and cut off by the next that writes to it"
            )
        yield ledger


def _read_by(ledger: Path, key: str) -> list[Path | None]:
    return [ledger, keys_path(ledger), source_path(key)]


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found.items()) or "none"


def _named(account: str | None) -> str:
    return "of no account" if account is None else clean(account, 100)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DyetraceError(f"--before takes a date, such as 2026-01-31 (got {text!r})") from None


def _confirm(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise DyetraceError("erasing can't be undone and nobody is there to be asked; add --yes")
    if not click.confirm(question, err=True):
        raise DyetraceError("nothing was erased")


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    """Write a file that its owner alone can read, whole or not at all, and never over another."""
    try:
        with unwinding():
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dyetrace-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
                move_new(Path(temporary), path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
    except OSError as error:
        raise refused_write(f"cannot write {path}", error) from None
