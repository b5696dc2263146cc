"""What a detection's report says to people who decide: written once, for its page and its PDF."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from detect.records.detection import Document, Record
from detect.records.written import clean, coin_tosses
from detect.report.checking import commitment_line
from detect.report.runs import Runs, level, listed, p_value, runs
from detect.report.paper.typeset import Summary
from detect.report.story import Fact
from detect.report.wording import Verdict, best_hypothesis, interest, limit_per_test, score, verdicts

_INPUTS = 5  # named in a sentence
_SENTENCE = 300  # characters of one that names accounts


@dataclass(frozen=True, slots=True)
class Told:
    """The documents with their verdicts, the most interesting first, and how many there are of each kind."""

    rows: list[tuple[int, Document, Verdict]]
    kinds: Counter[str]

    @property
    def kind(self) -> str:
        """Of the whole report: "marked", "refused" where every document is, else "unmarked"."""
        if self.kinds["marked"]:
            return "marked"
        return "refused" if self.kinds["refused"] and not self.kinds["unmarked"] else "unmarked"


def told(record: Record) -> Told:
    """Put into words what the record says of each document, with its place in the record."""
    answers = verdicts(record)
    rows = list(zip(range(len(answers)), record.documents, answers, strict=True))
    return Told(sorted(rows, key=lambda row: interest(row[1], row[2])), Counter(answer.kind for answer in answers))


def several_keys(record: Record) -> bool:
    """Whether more than one key was tested."""
    return any(document.tested > 1 for document in record.documents)


def ranked(record: Record) -> bool:
    """Whether p-values are ranks among decoy keys."""
    return any(d.decoys is not None and d.decoys.drawn is not None for d in record.documents)


def summary(record: Record) -> Summary:
    """Write the first page."""
    found = told(record)
    parts = [("What was tested", list(_tested(record))), ("How sure the answer is", list(_sure(record)))]
    return Summary(
        found.kind,
        _headline(record, found),
        list(_lead(record, found)),
        _facts(record, found),
        parts,
        list(_limits(record)),
    )


def _headline(record: Record, found: Told) -> str:
    total, marked, unmarked = len(found.rows), found.kinds["marked"], found.kinds["unmarked"]
    if total == 0:
        return "No documents were tested."
    if total == 1:
        sentence = clean(found.rows[0][2].sentence, _SENTENCE)
        return {"marked": f"The text is {sentence}.", "refused": "No answer is given."}.get(
            found.kind, "No mark was found."
        )
    if marked:
        return f"The mark was found in {marked:,} of {total:,} documents."
    if unmarked:
        return f"No mark was found in any of {total:,} documents."
    return f"No answer is given for any of {total:,} documents."


def _lead(record: Record, found: Told) -> Iterator[Runs]:
    if not found.rows:
        return
    _, document, answer = found.rows[0]
    if len(found.rows) == 1 and document.refused is not None:
        yield runs("$why.", why=document.refused[:1].upper() + document.refused[1:])
        return
    if answer.log10_pvalue is None:
        return
    strongest = "as high as the strongest document’s" if len(found.rows) > 1 else "this high"
    chance = runs(
        f"Without the key, a score {strongest} comes about with a chance of at most <b>$p</b>",
        p=p_value(answer.log10_pvalue),
    )
    if found.kinds["marked"]:
        tosses = coin_tosses(answer.log10_pvalue)
        likely = f", the chance of calling {tosses:,} tosses of a fair coin, each one right" if tosses > 9 else ""
        yield runs(f"$chance{likely}.", chance=chance)
    else:
        limit = level(limit_per_test(record))
        yield runs("$chance. A mark is called found at $level or less.", chance=chance, level=limit)


def _facts(record: Record, found: Told) -> list[Fact]:
    tokens = sum(document.tokens for document in record.documents)
    if len(found.rows) != 1:
        return [
            Fact("Documents", f"{len(found.rows):,}"),
            Fact("Marked", f"{found.kinds['marked']:,}"),
            Fact("No mark found", f"{found.kinds['unmarked']:,}"),
            Fact("Refused", f"{found.kinds['refused']:,}"),
            Fact("Tokens in all", f"{tokens:,}"),
        ]
    _, document, _ = found.rows[0]
    facts = [Fact("Tokens", f"{tokens:,}"), Fact("Tuples tested", f"{document.tuples:,}")]
    best = best_hypothesis(document)
    strength = score(record.spec, document, best) if best else None
    if strength is not None:
        facts.append(Fact(f"Strength, {strength.unit}", strength.short, f"against {strength.expected_short}"))
    if document.decoys is not None and document.refused is None:
        facts.append(Fact("Rank of the key", document.decoys.rank_of()))
    return facts


def _tested(record: Record) -> Iterator[Runs]:
    names = [
        runs("standard input") if one.name == "-" else runs("<code>$name</code>", name=one.name)
        for one in record.inputs[:_INPUTS]
    ]
    if len(record.inputs) > len(names):
        names.append(runs("$n more files", n=len(record.inputs) - len(names)))
    total = len(record.documents)
    yield runs(f"$n document{'' if total == 1 else 's'} from $names.", n=total, names=listed(names) or runs("no file"))
    derived = ", and the keys derived from it for the accounts that were named" if several_keys(record) else ""
    yield runs(
        f"Against the <code>$scheme</code> watermark of the key with fingerprint <code>$key</code>{derived}.",
        scheme=record.spec.scheme,
        key=record.key_fingerprint,
    )
    yield commitment_line(record.commitment)


def _sure(record: Record) -> Iterator[Runs]:
    where = " (the last section)" if record.assumptions else ""
    yield runs(
        f"If what this verdict assumes is true{where}, the chance of calling even one unmarked document marked is at "
        "most $level over this whole report. Every sub-key, account key, document and test of this run is paid for, "
        "other runs are not.",
        level=level(record.alpha),
    )
    if several_keys(record):
        yield runs(
            "A key is named where it pays for all pairs of a document and a key (Holm). The chance of naming even one "
            "that had no say in its document is at most $level, whoever else is guilty.",
            level=level(record.alpha),
        )
    if record.calibration is not None:
        yield runs("$said.", said=record.calibration.rstrip("."))
    else:
        yield runs(
            "P-values rest on the randomness of the key alone, on no model of language, and on no approximation: they "
            "are exact where the key had no say in the text or in its choice."
        )
    if ranked(record):
        yield runs("No other check by decoy keys is needed: the p-value is the true key’s rank among them.")
    elif record.decoy_count:
        yield runs(
            "The same test ran under $n decoy keys that nobody used. A p-value that they contradict is not printed. "
            "They test the arithmetic, and can’t see that a text was chosen with the key.",
            n=record.decoy_count,
        )
    else:
        yield runs("No decoy keys were run.")


def _limits(record: Record) -> Iterator[Runs]:
    yield runs(
        "A p-value is the chance of such a score if the text was written without the key. It is not the chance that "
        "the text was written without the key."
    )
    yield runs(
        "A mark shows that text came out of a generator that held the key, or quotes such text. It does not show who "
        "asked for it, who passed it on, or whether a quotation carries it."
        + (" A tenant’s key names the account that the text was generated for." if several_keys(record) else "")
    )
    yield runs(
        "No mark found does not mean that a person wrote the text. It may be too short, edited, translated, or from "
        "another generator."
    )
    yield runs("Whoever holds the key can make marked text. The answer is as good as the key’s secrecy.")
