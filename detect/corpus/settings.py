"""What a scan is asked for: everything that changes its result, and nothing that does not."""

from __future__ import annotations

import msgspec

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.readers import ReadOptions
from watermark.errors import DyetraceError
from watermark.spec import WatermarkSpec


class ScanSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a scan.

    Attributes
    ----------
    read
        How documents are found in files.
    alpha
        Family-wise false-positive rate of "found", over all keys, and of documents that point to a key, over all
        pairs of a document and a key.
    rate
        False-discovery rate of the list of documents.
    sample
        Share of the documents to scan, chosen by place and not by content.
    limit
        Only the first documents of each input file.
    decoys, decoy_seed
        Decoy keys that the corpus is tested under.
    tenants
        Accounts to test beside the global key.
    global_key
        Whether the global key is tested, where the key at hand gives it.
    """

    read: ReadOptions = ReadOptions()
    alpha: float = DEFAULT_ALPHA
    rate: float = 0.05
    sample: float = 1.0
    limit: int | None = None
    decoys: int = 100
    decoy_seed: str = "dyetrace"
    tenants: tuple[str, ...] = ()
    global_key: bool = True

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if not 0 < self.rate < 1:
            raise DyetraceError(f"rate must lie in (0, 1) (got {self.rate})")
        if not 0 < self.sample <= 1:
            raise DyetraceError(f"sample must lie in (0, 1] (got {self.sample})")
        if self.limit is not None and self.limit < 1:
            raise DyetraceError(f"limit must be 1 or more (got {self.limit})")
        if self.decoys < 0:
            raise DyetraceError(f"the number of decoys must be 0 or more (got {self.decoys})")


def check_specs(specs: list[WatermarkSpec]) -> None:
    """Refuse specs that can't share one pass over a corpus.

    Raises
    ------
    DyetraceError
        The specs differ in tokenizer, context width or master key, or one is given twice.
    """
    first = specs[0]
    for spec in specs:
        if spec.context_width == 0:
            raise DyetraceError(
                f"spec {spec.spec_id} has context width 0, under which documents share all their tuples; "
                "test them one by one with `dyetrace detect`"
            )
        for name in ("context_width", "tokenizer", "vocabulary_size", "key_fingerprint"):
            if getattr(spec, name) != getattr(first, name):
                raise DyetraceError(
                    f"specs of one scan must agree in {name} ({getattr(first, name)} and {getattr(spec, name)}); "
                    "scan once for each"
                )
    if len({spec.spec_id for spec in specs}) < len(specs):
        raise DyetraceError("a spec was given twice; leave one out")
