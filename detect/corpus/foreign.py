"""Documents of a scan under a foreign format whose words are no match for its law: bounds or ranks, one by one.

Each document counts what is hashed alike once. Its p-value is the law's tail with the bound of the format's seeds, or
the true key's rank among decoys; where few decoys are as extreme, that document alone is given more of them
(`detect.keyed.calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect.corpus.settings import ScanSettings
from detect.document.blind import law_tails
from detect.keyed.calibration import bounded_log10, method_of, ranked_log10, staged_rank
from detect.keyed.calibration import stages as stages_of
from detect.keyed.rings import decoy_keys
from detect.text.distinct import I64, Tuples
from watermark.keys import MarkingKey
from watermark.spec import WatermarkSpec

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class DocumentTests:
    """Of each document, (n,): tuples that count, their total, and the log10 p-value (0 where nothing counts)."""

    tuples: I64
    totals: I64
    log10_pvalue: Floats


def test_documents(
    tuples: Tuples,
    rows: Rows,
    documents: int,
    spec: WatermarkSpec,
    key: MarkingKey,
    settings: ScanSettings,
    *,
    stages: int | None = None,
) -> DocumentTests:
    """Test each document by itself.

    Parameters
    ----------
    tuples, rows
        Distinct tuples and the document of each, ascending.
    documents
        How many.
    spec, key
        The format and the key to test.
    settings
        Decoys.
    stages
        At most so many stages of decoys.
    """
    scheme = spec.build_scheme()
    found = DocumentTests(np.zeros(documents, np.int64), np.zeros(documents, np.int64), np.zeros(documents))
    edges = np.searchsorted(rows, np.arange(documents + 1))
    for number in np.flatnonzero(np.diff(edges)).tolist():
        mine = tuples.take(slice(int(edges[number]), int(edges[number + 1])))
        ns, totals, tails = law_tails(scheme, [key], mine)
        found.tuples[number], found.totals[number] = ns[0], totals[0]
        if method_of(scheme) == "bounded":
            found.log10_pvalue[number] = bounded_log10(scheme, tails)[0]
            continue

        def decoy_tails(first: int, last: int, mine: Tuples = mine) -> Floats:
            decoys = [subkeys[0] for subkeys in decoy_keys(settings.decoy_seed, last, spec)[first:]]
            return law_tails(scheme, decoys, mine)[2]

        rank = staged_rank(float(tails[0]), decoy_tails, stages_of(settings.decoys, len(mine))[:stages])
        found.log10_pvalue[number] = ranked_log10(scheme, key, mine, *rank)
    return found
