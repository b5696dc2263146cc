"""The words and numbers of a scan that its terminal view, its page and its PDF share. Every string is untrusted."""

from __future__ import annotations

import math
from collections import Counter

from detect.corpus.gather import added
from detect.records.scan import Hit, ScanHypothesis, ScanRecord
from detect.records.seen import TurnCount
from detect.records.written import key_label
from detect.report import controls
from detect.report.runs import p_value, runs
from detect.report.story import Item
from detect.report.wording import command, keys_named, operand, options
from watermark.laws import Bernoulli, in_nats
from watermark.spec import WatermarkSpec

_SOURCES = 20  # inputs named in a command
# Arguments of `dyetrace scan` that `recompute_command` states itself.
_STATED = {"paths", "alpha", "decoys", "decoy_seed"}


def strongest_keys(record: ScanRecord) -> list[ScanHypothesis]:
    """The keys tested, smallest p-value first."""
    return sorted(record.hypotheses, key=lambda h: (h.log10_pvalue_adjusted, h.log10_pvalue))


def found_keys(record: ScanRecord) -> list[ScanHypothesis]:
    """The keys whose mark was found, smallest p-value first."""
    limit = math.log10(record.alpha)
    return [h for h in strongest_keys(record) if record.found and h.log10_pvalue_adjusted <= limit]


def named_in(record: ScanRecord, hit: Hit) -> str:
    """Which key to show beside a document: the only one tested, those that it points to, or "none named".

    The key with the smallest p-value is no finding: some key has it in any text.
    """
    if len(record.hypotheses) == 1:
        return key_label(hit.key)
    return keys_named([key_label(key) for key in hit.points_to])


def pointing_note(record: ScanRecord) -> str:
    """What a document pays for before it points to a key."""
    if record.pairs_paid:
        return f"p at most alpha / {record.pairs_paid:,}, the number of pairs of a tested document and a key"
    return "paid for over the keys of each document, and not over documents: of many documents some may point wrongly"


def place(record: ScanRecord, hit: Hit) -> str:
    """Where a document is: "FILE:RECORD", or "FILE" where the file is one document; of several fields also which."""
    source = record.inputs[hit.input]
    if source.form.startswith("text") and source.records <= 1:
        return source.name
    several = sum((other.name, other.sha256) == (source.name, source.sha256) for other in record.inputs) > 1
    return f"{source.name}:{hit.record}" + (f" ({source.column})" if several else "")


def skipped(record: ScanRecord) -> int:
    """How many broken records were left out."""
    return sum(source.skipped for source in record.inputs)


def turns(record: ScanRecord) -> list[TurnCount]:
    """The parts of turns of all inputs added up, by role and part."""
    return added(one for source in record.inputs for one in source.turns)


def skipped_reasons(record: ScanRecord) -> list[tuple[str, int]]:
    """The reasons that the record lists, with how often, the commonest first."""
    reasons = Counter(one.reason for source in record.inputs for one in source.skipped_first)
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def unit_name(spec: WatermarkSpec) -> str:
    """What a document's mean score is counted in."""
    law = spec.build_scheme().law
    if in_nats(law):
        return "nats per token"
    return "share on the green list" if isinstance(law, Bernoulli) else "points per token"


def spec_of(record: ScanRecord, key: str) -> WatermarkSpec:
    """The spec that a key belongs to."""
    return next((record.specs[h.spec] for h in record.hypotheses if h.key == key), record.specs[0])


def recompute_command(record: ScanRecord) -> str:
    """Write the command that computes the record again; the key's place is named, never the key."""
    paths = record.arguments.get("paths")
    names = paths if isinstance(paths, list) else [source.name for source in record.inputs]
    specs = ["spec.json"] if len(record.specs) == 1 else [f"spec{i + 1}.json" for i in range(len(record.specs))]
    words = ["dyetrace", "scan", *map(operand, names[:_SOURCES])]
    words += [word for spec in specs for word in ("--spec", spec)]
    words += ["--key", "file:KEYFILE", "--alpha", f"{record.alpha:g}"]
    words += ["--decoys", str(len(record.controls.decoy_log10_pvalues)), "--decoy-seed", record.controls.decoy_seed]
    words += options(dict(sorted(record.arguments.items())), _STATED)
    words += [*([] if record.quotes else ["--no-quotes"]), "-o", "again/"]
    return command(words) + (" # and the other inputs" if len(names) > _SOURCES else "")


WHY_UNTESTED = "empty, no longer than the context, or all of it said before"


def untested(record: ScanRecord) -> int:
    """How many documents own no tuple, so that nothing was said of them by themselves."""
    return record.documents - record.discoveries.tested


def control_items(record: ScanRecord) -> list[Item]:
    """What each control says: whether it is as it should be, and a line that is plain ASCII but for names."""
    ran = record.controls
    items = [controls.decoys(len(ran.decoy_log10_pvalues), ran.decoy_log10_agreement)]
    if ran.null_key_histogram:
        items.append(controls.unused_key(ran.null_key_discoveries, ran.null_key_log10_pvalue))
    if ran.null_corpus is None:
        return [*items, controls.absent("no control corpus was tested")]
    files = ran.null_corpus_inputs
    line = runs(
        "control corpus ($name$hashes): $n of $all documents listed, p = $p",
        name=ran.null_corpus,
        hashes=runs(", SHA-256 $first...", first=files[0].sha256[:12]) if len(files) == 1 else (),
        n=ran.null_corpus_discoveries,
        all=ran.null_corpus_documents,
        p=p_value(ran.null_corpus_log10_pvalue),
    )
    return [*items, controls.no_mark(line, ran.null_corpus_log10_pvalue)]
