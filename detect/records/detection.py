"""The record of a detection: everything that another party needs to recompute it, and nothing secret.

The JSON report is this record; the terminal view and the HTML page are drawn from it and hold nothing more.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.report import Report
from watermark.commitment import Commitment
from watermark.spec import WatermarkSpec

RECORD_VERSION = 1


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file that was read: its name as given ("-" is standard input), SHA-256 and size in bytes."""

    name: str
    sha256: str
    bytes: int


class SubkeyTally(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One sub-key's test: the sum of the tuples' statistics in integer units, and its exact log10 p-value."""

    subkey: int
    total: int
    log10_pvalue: float


class Hypothesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The test of one key: "the global key" or one tenant's, over the contexts that it marks.

    Attributes
    ----------
    key
        "global", or "tenant:NAME".
    tuples
        Distinct (context, token) tuples tested.
    subkeys
        Each sub-key's tally.
    log10_pvalue
        Of the best sub-key, the choice among sub-keys paid for (Šidák).
    log10_pvalue_adjusted
        The same with the choice among keys paid for as well (Holm).
    """

    key: str
    tuples: int
    subkeys: list[SubkeyTally]
    log10_pvalue: float
    log10_pvalue_adjusted: float


class DecoyRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same test under keys that nobody used: how the true key ranks among them, and whether they look right.

    Attributes
    ----------
    log10_pvalues
        Of each decoy key, in order of its number.
    rank
        1 + how many decoys have a p-value as small as the true key's.
    drawn
        For a format whose p-values are ranks: among how many decoys, of which ``log10_pvalues`` has the first ones' law
        tails; null where p-values are the law's.
    log10_agreement
        log10 p-value of the decoys' own p-values against "uniform or larger"; small means that the test is broken.
    """

    log10_pvalues: list[float]
    rank: int
    log10_agreement: float
    drawn: int | None = None

    @property
    def among(self) -> int:
        """Keys that the rank is among: the true one, and all decoys that were drawn."""
        return 1 + (len(self.log10_pvalues) if self.drawn is None else self.drawn)

    @property
    def place(self) -> str:
        """The true key's place in words, which every form of a report says: "1 of 10,001"."""
        return f"{self.rank:,} of {self.among:,}"


class AwareHypothesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model-aware test of one key: an e-value (mean of its sub-keys') and what it bounds the p-value by."""

    key: str
    positions: int
    log10_evalue: float
    log10_pvalue: float
    log10_pvalue_adjusted: float


class AwareResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model-aware test: valid for any model that never learnt from text marked with this key."""

    model: str
    hypotheses: list[AwareHypothesis]
    log10_pvalue: float
    decoy_log10_evalues: list[float]


class TokenView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the page shows of a document: its tokens, and for each the statistic's null survival probability.

    ``pvalues[i]`` is the probability that a token scores at least this without the key, under the best sub-key of the
    best hypothesis; null for tokens that were not counted (repeats, and tokens whose context is not known or belongs
    to another key). ``texts`` are empty where the report quotes nothing.
    """

    hypothesis: str
    subkey: int
    texts: list[str]
    pvalues: list[float | None]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One document's result.

    Attributes
    ----------
    name
        "FILE", or "line N" with the record's own id.
    sha256
        Of the token ids as little-endian uint32, prompt excluded.
    tokens
        Number of token ids, prompt excluded.
    prompt_tokens
        Number of known prompt tokens, or null when the prompt is unknown.
    tuples
        Distinct tuples in all.
    hypotheses
        One for each key tested; none when the p-value is refused. Of a family of more than
        `detect.document.blind.WHOLE_FAMILY` keys the strongest alone, and all that the document points to.
    log10_pvalue
        The document's p-value over all keys tested; null when it was refused.
    log10_pvalue_corpus
        The same, adjusted over all documents of this report (Holm).
    refused
        Why no p-value is given: the decoys contradict the test, or nothing could be tested.
    found
        Whether ``log10_pvalue_corpus`` (or the model-aware one, adjusted alike) is at or below log10 alpha.
    points_to
        Keys whose p-value for this document, adjusted over all pairs of a document and a key in this report (Holm), is
        at or below alpha (half of it for each test, blind and model-aware, where both were run): these alone are named.
        May be empty though the document is found, which is then by one of the keys tested. Null in older reports.
    keys_tested
        How many keys were tested, whether they stand in ``hypotheses`` or not; null in older reports, where all do.
    """

    name: str
    sha256: str
    tokens: int
    prompt_tokens: int | None
    tuples: int
    hypotheses: list[Hypothesis]
    log10_pvalue: float | None
    log10_pvalue_corpus: float | None
    decoys: DecoyRun | None
    aware: AwareResult | None = None
    refused: str | None = None
    found: bool = False
    view: TokenView | None = None
    points_to: list[str] | None = None
    keys_tested: int | None = None

    @property
    def tested(self) -> int:
        """How many keys were tested."""
        return len(self.hypotheses) if self.keys_tested is None else self.keys_tested


class KeySums(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key of a large family: what shows all that was computed under it, without the numbers of every document.

    Attributes
    ----------
    key
        "global", or "tenant:NAME".
    sha256
        Of its distinct tuples in each document and the sums under its sub-keys, in the order of the documents: little-
        endian int64, 1 + S for each document.
    """

    key: str
    sha256: str


class Record(Report, frozen=True, kw_only=True):
    """A whole detection report.

    Attributes
    ----------
    calibration
        How p-values came about where they aren't the law's tails.
    keys
        Of a family so large that documents hold its strongest keys alone: every key tested; else null.
    decoy_accounts
        How many accounts' keys each decoy has (`detect.keyed.decoys.accounts_of_decoys`); null in older reports: all.
    quotes
        Whether texts of the documents, and the ids that their records bear, may stand in the report; without them
        token views have empty texts.
    unlike_text
        Documents whose token ids spell other text than the one beside them, which was read instead; null where none
        has both, and in reports of earlier releases, which took ids as they stand.
    """

    format: Literal["dyetrace-detection"] = "dyetrace-detection"
    version: int = RECORD_VERSION
    arguments: dict[str, str | int | float | bool | list[str] | None]
    spec: WatermarkSpec
    spec_id: str
    key_fingerprint: str
    commitment: Commitment | None
    tests: list[str]
    decoy_seed: str
    decoy_count: int
    encoder: str
    inputs: list[Input]
    documents: list[Document]
    calibration: str | None = None
    keys: list[KeySums] | None = None
    decoy_accounts: int | None = None
    quotes: bool = True
    unlike_text: int | None = None

    @property
    def found(self) -> list[Document]:
        """The documents in which the mark was found."""
        return [document for document in self.documents if document.found]
