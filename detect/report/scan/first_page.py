"""What a scan's report says to people who decide."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections.abc import Iterator, Sequence

from detect.corpus.chosen import fields_lines, fields_read, turns_lines
from detect.records.scan import ScanRecord
from detect.records.written import counted, key_label, key_phrase, percent
from detect.report.checking import commitment_line
from detect.report.runs import Runs, level, listed, p_value, runs, said
from detect.report.scan.wording import (
    WHY_UNTESTED,
    found_keys,
    pointing_note,
    skipped,
    skipped_reasons,
    turns,
    untested,
)
from detect.report.story import Fact
from detect.report.wording import (
    capital,
    chance_of,
    decoys_run,
    exactness,
    inputs_named,
    interval,
    limits_of_text,
    tosses_line,
    watermark_line,
)

_KEYS = 6  # accounts spelt out
_NAMED = 5  # named in a sentence; more are counted
_BRIEF_INPUTS = 3  # named in a terminal
_SENTENCE = 600  # characters of one that the record holds


def headline(record: ScanRecord) -> str:
    """The answer in a sentence."""
    if record.log10_pvalue is None:
        return "No answer is given."
    if record.found:
        return "The mark was found in this corpus."
    return "No mark was found in this corpus." if record.documents else "No documents were scanned."


def parts(record: ScanRecord) -> list[tuple[str, Sequence[Runs]]]:
    """What stands behind the answer: lists of sentences under headings."""
    told = [("What was tested", list(_tested(record))), ("How sure the answer is", list(_sure(record)))]
    if record.refused is None:
        told += [("How much of it is marked", list(_amount(record))), ("Whose account", list(_account(record)))]
    return [*told, ("What it does not show", list(_limits(record)))]


def brief(record: ScanRecord) -> Iterator[Runs]:
    """The answer as a terminal has it: the headline, what it rests on, and the corpus."""
    yield runs(headline(record))
    if record.log10_pvalue is None:
        yield said(record.refused or "", _SENTENCE)
    else:
        p, limit = p_value(record.log10_pvalue), level(record.alpha)
        yield runs("p = $p, all keys of this scan paid for; found at $limit or less", p=p, limit=limit)
        if record.calibration is not None:
            yield said(record.calibration, _SENTENCE)
        yield from tosses_line(record.log10_pvalue, found=record.found)
        if not record.found and record.discoveries.benjamini_hochberg:
            yield runs("The list of documents below rests on the false-discovery rate alone.")
    yield from _brief_facts(record)


def _brief_facts(record: ScanRecord) -> Iterator[Runs]:
    yield runs(
        "corpus: $documents documents, $tokens tokens, $tuples distinct tuples",
        documents=record.documents,
        tokens=record.tokens,
        tuples=record.distinct_tuples,
    )
    yield runs("from: $names", names=inputs_named(record.files_read, _BRIEF_INPUTS))
    for line in (*fields_lines(fields_read(record.files_read)[:_BRIEF_INPUTS]), *turns_lines(turns(record))):
        yield runs("$line", line=line)
    if record.unread:
        names = "; ".join(f"{file.name} {file.reason}" for file in record.unread_first[:_BRIEF_INPUTS])
        yield runs("not read: $n files: $names", n=record.unread, names=said(names, _SENTENCE))
    if untested(record):
        yield runs(f"untested: $n documents have nothing to test ({WHY_UNTESTED})", n=untested(record))
    if skipped(record):
        reasons = "; ".join(f"{reason} ({count}x)" for reason, count in skipped_reasons(record)[:2])
        yield runs("skipped: $n broken records: $reasons", n=skipped(record), reasons=reasons)
    if record.refused is not None:
        return
    found, shares = record.discoveries, record.shares
    yield runs(
        "documents: $n of $all tested documents listed at a false-discovery rate of $rate ($e by e-values)",
        n=found.benjamini_hochberg,
        all=found.tested,
        rate=percent(found.rate),
        e=found.e_benjamini_hochberg,
    )
    yield runs(f"share: {interval(shares.documents)} of documents, {interval(shares.tokens)} of tuples")


def lead(record: ScanRecord) -> Iterator[Runs]:
    """What the answer means."""
    if record.log10_pvalue is None:
        yield runs("$why.", why=capital(record.refused or ""))
        return
    if not record.documents:
        return
    strongest = "the strongest key’s" if len(record.hypotheses) > 1 else "these"
    scores, listed_too = f"scores as high as {strongest} come about", record.discoveries.benjamini_hochberg
    yield chance_of(scores, record.log10_pvalue, record.alpha, found=record.found)
    if record.found and not listed_too:
        yield runs("The mark is spread thinly: it shows in the corpus as a whole, and in no single document.")
    if listed_too and not record.found:
        yield runs(
            "$n of the documents are listed below at a false-discovery rate of $rate. That list is a lead, not a "
            "finding about the corpus.",
            n=listed_too,
            rate=percent(record.discoveries.rate),
        )


def facts(record: ScanRecord) -> list[Fact]:
    """The numbers that a reader looks for first."""
    told = [
        Fact("Documents", f"{record.documents:,}"),
        Fact("Tokens", f"{record.tokens:,}"),
        Fact("Distinct tuples", f"{record.distinct_tuples:,}", f"of {record.tuples:,}"),
    ]
    if record.refused is None:
        found = record.discoveries
        told.append(Fact("Documents listed", f"{found.benjamini_hochberg:,}", f"of {found.tested:,}"))
        share = record.shares.documents
        least = f"≥ {percent(share.low)}" if share.low > 0 else "none shown"
        told.append(Fact("Documents marked", least, f"at {percent(share.confidence)} confidence"))
    silent = untested(record)
    if silent:
        told.append(Fact("Documents with nothing to test", f"{silent:,}", WHY_UNTESTED))
    broken = skipped(record)
    if broken:
        told.append(Fact("Records skipped", f"{broken:,}"))
    if record.unread:
        told.append(Fact("Files not read", f"{record.unread:,}"))
    return told


def _tested(record: ScanRecord) -> Iterator[Runs]:
    documents = counted(record.documents, "document")
    yield runs("$documents from $names.", documents=documents, names=inputs_named(record.files_read))
    yield from _chosen(record)
    broken = skipped(record)
    if broken:
        reasons = [runs("$why ($n)", why=why, n=count) for why, count in skipped_reasons(record)[:3]]
        were = "record was" if broken == 1 else "records were"
        yield runs(f"$n broken {were} left out: $reasons.", n=broken, reasons=listed(reasons))
    schemes = [
        runs(
            "<code>$scheme</code> (epoch $epoch)" if len(record.specs) > 1 else "<code>$scheme</code>",
            scheme=spec.scheme,
            epoch=spec.epoch,
        )
        for spec in record.specs
    ]
    accounts = len({key_label(h.key) for h in record.accounts})
    derived = counted(accounts, "account") if accounts else ""
    yield watermark_line(schemes, record.key_fingerprint, derived)
    yield commitment_line(record.commitment)


def _chosen(record: ScanRecord) -> Iterator[Runs]:
    """Which fields, turns and files were read, and which were not."""
    for line in fields_lines(fields_read(record.files_read)):
        yield runs("Fields of $line.", line=line)
    for line in turns_lines(turns(record)):
        yield runs("$line.", line=capital(line))
    if record.unread:
        more = f" and {record.unread - _NAMED:,} more" if record.unread > _NAMED else ""
        names = listed([runs("$name ($why)", name=file.name, why=file.reason) for file in record.unread_first[:_NAMED]])
        were = "file was" if record.unread == 1 else "files were"
        yield runs(f"$n {were} not read: $names{more}.", n=record.unread, names=names)


def _sure(record: ScanRecord) -> Iterator[Runs]:
    where = " (the last section)" if record.assumptions else ""
    yield runs(
        f"If what this verdict assumes is true{where}, the chance of calling a corpus marked that holds no "
        "mark is at most $level. Every sub-key, key and test of this scan is paid for, other scans are not.",
        level=level(record.alpha),
    )
    once = "Text that stands in several documents is counted once."
    yield runs(f"$exact {once}", exact=exactness(record.calibration))
    if record.refused is None and record.discoveries.benjamini_hochberg:
        found = record.discoveries
        yield runs(
            "$n documents are listed. On average over keys, at most $rate of such a list is there by chance. By "
            "e-values, which hold however documents depend on each other, $e are listed.",
            n=found.benjamini_hochberg,
            rate=percent(found.rate),
            e=found.e_benjamini_hochberg,
        )
    yield decoys_run(len(record.controls.decoy_log10_pvalues))


def _amount(record: ScanRecord) -> Iterator[Runs]:
    shares, found = record.shares, record.discoveries
    for what, share in (("documents", shares.documents), ("distinct tuples", shares.tokens)):
        yield runs(
            f"Share of the {what}: <b>$share</b>, at $confidence confidence. Method: $method.",
            share=interval(share),
            confidence=percent(share.confidence),
            method=share.method,
        )
    if found.benjamini_hochberg:
        yield runs(
            "The listed documents hold $n of the corpus’s $all tokens ($share).",
            n=found.tokens,
            all=record.tokens,
            share=percent(found.tokens / max(1, record.tokens)),
        )


def _account(record: ScanRecord) -> Iterator[Runs]:
    tenants = record.accounts
    found = found_keys(record)
    for key in found[:_KEYS]:
        yield runs(
            "<b>$key</b>: p = $p, all keys paid for. $n of the listed documents point to it ($paid).",
            key=capital(key_phrase(key.key)),
            p=p_value(key.log10_pvalue_adjusted),
            n=key.pointed,
            paid=pointing_note(record),
        )
    if len(found) > _KEYS:
        yield runs("$n more keys are found; the table of keys has them.", n=len(found) - _KEYS)
    named_accounts = [h for h in found if h in tenants]
    if not tenants:
        yield runs(
            "No account’s key was tested. The global key shows that text came out of the owner’s generator, and not "
            "for whom it was made."
            if any(spec.global_share < 1 for spec in record.specs)
            else "The watermark has no keys of accounts: it cannot say for whom text was generated."
        )
    elif not named_accounts:
        names = [said(key_label(key.key)) for key in tenants[:_NAMED]]
        if len(tenants) > _NAMED:
            names.append(runs("$n more accounts", n=len(tenants) - _NAMED))
        yield runs("None of the accounts tested is found: $names.", names=listed(names))


def _limits(record: ScanRecord) -> Iterator[Runs]:
    passed = "how it came into this corpus, or whether anyone knew"
    yield from limits_of_text(passed, accounts=bool(record.accounts))
    if record.refused is None and record.discoveries.benjamini_hochberg:
        yield runs(
            "The list holds for the documents together. Any single one of them may be there by chance, the weaker ones "
            "sooner."
        )
    if record.refused is None:
        yield runs("A share without an upper limit counts only what the mark makes visible.")
    if skipped(record):
        yield runs("Records that were skipped were not tested.")
    if record.unread:
        yield runs("Files that were not read were not tested.")
    if any(not one.read for one in turns(record)):
        yield runs("Turns, and parts of turns, that were not read were not tested.")
