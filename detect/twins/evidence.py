"""What a test by twins rests on: every pair's differences and its sign, in the order of the bets, in a file.

Whoever has it computes the bets, the sign tests, the curve and the accounts again, without the suspect, the ledger or a
key; with the ledger and the key the signs as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detect.records.arrays import encode_arrays, read_arrays, strings_array, strings_of
from watermark.errors import DyetraceError, EvidenceError

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]

EVIDENCE_FILE = "twins.npz"
_VERSION = 1
_ID_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class TwinEvidence:
    """The pairs that were bet on, in the order of the bets, which is that of their requests.

    Attributes
    ----------
    ids
        Of the pairs, n of them, 32 hex digits each.
    made
        When their requests came (`Pair.made`), ascending.
    columns
        Names of the k numbers of a measure, the first the one that stands for it.
    differences
        First side less second, shape (n, k); 0 says nothing.
    covariate_names, covariates
        What else flips with a pair and was regressed out, shape (n, c); c is 0 where there was none.
    signs
        1 where the first side was served, -1 where the second, shape (n,).
    accounts
        Names of the accounts that were looked at one by one, ascending.
    account
        Which of them a pair is of, shape (n,); -1 for none of them.
    combination
        Weights of a score of all columns that was fixed before any of these pairs existed, shape (k,); None where there
        is none (`detect.twins.bets.Bettor`).
    """

    ids: tuple[str, ...]
    made: tuple[str, ...]
    columns: tuple[str, ...]
    differences: F64
    covariate_names: tuple[str, ...]
    covariates: F64
    signs: I8
    accounts: tuple[str, ...]
    account: I32
    combination: F64 | None = None

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.ids)


def encode_evidence(evidence: TwinEvidence) -> bytes:
    """The bytes of the file; the same evidence gives the same bytes."""
    ids = np.frombuffer(b"".join(map(bytes.fromhex, evidence.ids)), dtype=np.uint8)
    arrays = {
        "version": np.array(_VERSION),
        "ids": ids.reshape(len(evidence), _ID_BYTES),
        "made": strings_array(evidence.made),
        "columns": strings_array(evidence.columns),
        "differences": evidence.differences.astype("<f8"),
        "covariate_names": strings_array(evidence.covariate_names),
        "covariates": evidence.covariates.astype("<f8"),
        "signs": evidence.signs.astype("i1"),
        "accounts": strings_array(evidence.accounts),
        "account": evidence.account.astype("<i4"),
    }
    if evidence.combination is not None:
        arrays["combination"] = evidence.combination.astype("<f8")
    return encode_arrays(arrays)


def read_evidence(path: Path) -> TwinEvidence:
    """Read the file.

    Raises
    ------
    DyetraceError
        It can't be read, is damaged, or its arrays don't fit together.
    """
    arrays = read_arrays(path)
    try:
        if int(arrays["version"]) != _VERSION:
            raise DyetraceError(f"{path} has version {int(arrays['version'])}, but this dyetrace reads {_VERSION}")
        found = TwinEvidence(
            ids=tuple(row.tobytes().hex() for row in arrays["ids"].astype(np.uint8)),
            made=strings_of(arrays["made"]),
            columns=strings_of(arrays["columns"]),
            differences=arrays["differences"].astype(np.float64),
            covariate_names=strings_of(arrays["covariate_names"]),
            covariates=arrays["covariates"].astype(np.float64),
            signs=arrays["signs"].astype(np.int8),
            accounts=strings_of(arrays["accounts"]),
            account=arrays["account"].astype(np.int32),
            combination=arrays["combination"].astype(np.float64) if "combination" in arrays else None,
        )
    except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise EvidenceError(
            f"{path} is not the evidence of a test by twins ({error}); give the report's own {EVIDENCE_FILE}"
        ) from None
    wrong = _wrong(found)
    if wrong:
        raise EvidenceError(f"{path} is damaged: {wrong}; restore it from a copy")
    return found


def _wrong(found: TwinEvidence) -> str:
    """What doesn't fit; "" where all does."""
    n = len(found.ids)
    shapes = (
        found.differences.shape == (n, len(found.columns))
        and found.covariates.shape == (n, len(found.covariate_names))
        and found.signs.shape == found.account.shape == (n,)
        and len(found.made) == n
        and all(len(one) == 2 * _ID_BYTES for one in found.ids)
    )
    score = np.zeros(len(found.columns)) if found.combination is None else found.combination
    if not shapes or not found.columns or score.shape != (len(found.columns),):
        return "its arrays don't fit together"
    if not all(np.isfinite(numbers).all() for numbers in (found.differences, found.covariates, score)):
        return "a difference is not a finite number"
    if not np.isin(found.signs, (-1, 1)).all():
        return "a sign is neither 1 nor -1"
    if not ((found.account >= -1) & (found.account < len(found.accounts))).all():
        return "a pair is of an account that is not there"
    if len(set(found.ids)) != n:
        return "a pair stands in it twice"
    if any(one > other for one, other in pairwise(zip(found.made, found.ids, strict=True))):
        return "its pairs are not in the order of their requests"
    if any(one >= other for one, other in pairwise(found.accounts)):
        return "its accounts are not in order"
    return ""
