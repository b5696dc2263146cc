"""How often each context was served, per account and sub-key, as keyed hashes in a sketch of fixed size.

A serving engine adds each finished answer's distinct contexts; a trace looks up the contexts of what it reads. Counts
are of answers: a context counts once in each, however often it stands there. Looking up is all that a trace needs, so
no text and no list of contexts is kept.

**The sketch** is a count-min table of `ROWS` rows (Cormode and Muthukrishnan 2005): a context has one 16-bit counter
in each row, and its count is the least of them. With N counts added and w counters a row it is never too low, and too
high by more than e N / w for a share of e^-4 = 1.8% of contexts at most. Only counters that would read too low are
raised ("conservative update", Estan and Varghese 2002), which never does worse. Counters stop at 65,535. Tables of one
shape add up, and the sum is again never too low: servers count apart, and their ledgers are merged.

**The hashes** are words of the one primitive: row r of a context is the word of token r under a key of the ledger's
own, derived from the global key (for all accounts together) or an account's key (for its own counts), one for each
sub-key. So a stolen ledger tells whoever has no key how many answers and contexts were counted and which values the
counters have (two copies of different days: which of them grew), but not of which contexts. With one account's key that
account's counts can be read and no others.

**Why weights from it leave a trace valid.** The law of a trace's total takes each weight as no function of the words
that it multiplies. The exact count of a context c is none of c's words: an answer counts c once, when it first comes up
there, which words of the contexts before have decided. The sketch adds counts of other contexts that share c's
counters. Which ones is drawn by the ledger's keys; as outputs of BLAKE2b under a purpose of their own they are
independent of all words that mark text. The draw looks at the context alone: it moves the weights of all tokens after
c together, never that of one (context, token). All that is left is that c's words lead to some contexts more often
than to others, and each of those shares a given counter of c with a chance of 1/w. So the sketch makes weights noisier,
which costs power, and is otherwise as sound as exact counts of the same answers; `benchmarks.ledger` tests that with
crowded tables under many keys.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from watermark import prf
from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.ledger_file import LARGEST_COUNT, ROWS, U16, U64, LedgerFile, new_file, new_header, open_file
from watermark.prf import MISSING, U32
from watermark.spec import WatermarkSpec, check_key

I64 = npt.NDArray[np.int64]

MOST_WAITING = 256
"""Answers that may wait for the file; with a slower disk `add` waits too."""
_CHUNK = 1 << 14  # contexts that are looked up at a time
_KEYS = 4096  # accounts' keys that are kept at hand


class Ledger:
    """An open ledger; make one with `Ledger.create` or `Ledger.open`. Its methods may be called from any thread.

    `add` hashes and returns; a thread of the ledger's own raises the counters, so that no step of an engine waits for
    the disk. What it has raised survives the death of the process, SIGKILL included; lost are the answers that wait for
    it, `MOST_WAITING` at most and commonly none. To outlast a power cut as well, call `flush`.
    """

    def __init__(self, file: LedgerFile, spec: WatermarkSpec, ring: KeyRing, *, write: bool) -> None:
        self._file: LedgerFile | None = file
        self._spec, self._ring = spec, ring
        self._process = os.getpid()
        self._guard = threading.RLock()
        self._waiting: deque[Future[None]] = deque()
        self._keys = lru_cache(maxsize=_KEYS)(self._derived)
        self._worker = ThreadPoolExecutor(1, "dyetrace-ledger") if write else None
        if write:  # compiles, where that is still to be done, before the first answer
            none = np.zeros((1, spec.context_width), dtype=np.uint32)
            _count(file.cells.reshape(-1), self._cells(file, None, 0, none)[:, :0], file.totals, 0, 0)

    @classmethod
    def create(cls, path: Path, spec: WatermarkSpec, ring: KeyRing, *, megabytes: int = 64) -> Ledger:
        """Make an empty ledger and open it for writing.

        Parameters
        ----------
        path
            The file; only its owner may read it.
        spec, ring
            The watermark and the owner's keys.
        megabytes
            Size of the table, on disk and in memory, once and for all: only ledgers of one size can be merged. With
            131,072 contexts added per megabyte (512 answers of 256 tokens; half as many where they are of accounts)
            counts are too high by 0.02 on average, with 4 times as many by 0.15 to 0.5 (`benchmarks.ledger`).

        Raises
        ------
        DyetraceError
            The file exists, the disk has no room, or the keys are not the spec's or not the owner's.
        """
        _check(spec, ring, write=True)
        with new_file(Path(path), new_header(spec.spec_id, spec.key_fingerprint, megabytes)):
            pass
        return cls.open(path, spec, ring, write=True)

    @classmethod
    def open(cls, path: Path, spec: WatermarkSpec, ring: KeyRing, *, write: bool = False) -> Ledger:
        """Open a ledger to look up counts, also while a server writes to it, or (one process at a time) to add to it.

        Raises
        ------
        DyetraceError
            The file is no whole ledger, is of another spec or key, or another process is writing to it.
        """
        _check(spec, ring, write=write)
        file = open_file(Path(path), write=write)
        if file.header.spec_id != spec.spec_id or file.header.key_fingerprint != spec.key_fingerprint:
            of = file.header.spec_id
            file.close()
            raise DyetraceError(
                f"ledger {path} is of spec {of}, but this spec is {spec.spec_id}; each spec has its own ledger"
            )
        return cls(file, spec, ring, write=write)

    @property
    def answers(self) -> int:
        """Answers that were added."""
        return int(self._settled().totals[0])

    @property
    def contexts(self) -> int:
        """Distinct contexts of each answer, summed over answers."""
        return int(self._settled().totals[1])

    def add(self, tenant: str | None, subkey: int, contexts: npt.ArrayLike) -> None:
        """Count the contexts of one finished answer.

        Parameters
        ----------
        tenant
            The account that it was for: it is counted for the account and for all together. None: for all alone.
        subkey
            The sub-key that marked it.
        contexts
            The contexts that its tokens were chosen in, (n, h), oldest token first (`answer_contexts`). Each counts
            once.
        """
        distinct = _distinct(self._checked(contexts))
        self._check_subkey(subkey)
        owners = (None,) if tenant is None else (None, tenant)
        with self._guard:
            file = self._opened()
            if self._worker is None or os.getpid() != self._process:
                raise DyetraceError(f"ledger {file.path} was not opened for writing in this process; open it again")
            cells = np.concatenate([self._cells(file, owner, subkey, distinct) for owner in owners], axis=1)
            self._settle(MOST_WAITING - 1)
            table = file.cells.reshape(-1)
            self._waiting.append(self._worker.submit(_count, table, cells, file.totals, 1, len(distinct)))

    def counts(self, contexts: npt.ArrayLike, subkey: int, tenant: str | None = None) -> I64:
        """In how many answers each context was served under a sub-key: at least that often, (n, h) -> (n,).

        Parameters
        ----------
        contexts
            Shape (n, h), oldest token first.
        subkey
            Index of the sub-key.
        tenant
            Count this account's answers; None counts all, which needs the owner's key.
        """
        of = self._checked(contexts)
        self._check_subkey(subkey)
        file = self._settled()
        table = file.cells.reshape(-1)
        out = np.zeros(len(of), dtype=np.int64)
        for start in range(0, len(of), _CHUNK):
            some = slice(start, start + _CHUNK)
            out[some] = table[self._cells(file, tenant, subkey, of[some])].min(0)
        return out

    def counts_by_subkey(self, contexts: npt.ArrayLike, tenant: str | None = None) -> I64:
        """`counts` under each of the spec's sub-keys, (n, h) -> (n, subkeys)."""
        of = self._checked(contexts)
        return np.stack([self.counts(of, index, tenant) for index in range(self._spec.subkeys)], axis=1)

    def flush(self) -> None:
        """Return when all that was added is on the disk, safe from a power cut; it may take a second."""
        with self._guard:
            file = self._settled()
            if self._worker is not None:
                file.sync()

    def close(self) -> None:
        """Flush and let another process write."""
        with self._guard:
            if self._file is None:
                return
            if self._worker is not None and os.getpid() == self._process:
                self.flush()
                self._worker.shutdown()
            self._file.close()
            self._file = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> LedgerFile:
        if self._file is None:
            raise DyetraceError("the ledger was closed; open it again")
        return self._file

    def _settled(self) -> LedgerFile:
        """The file, when all that this process has added stands in it."""
        with self._guard:
            if os.getpid() == self._process:
                self._settle(0)
            return self._opened()

    def _settle(self, most: int) -> None:
        """Wait until at most so many answers wait for the file."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()

    def _cells(self, file: LedgerFile, owner: str | None, subkey: int, contexts: U32) -> I64:
        """Indices into the flat table: contexts (n, h) -> (rows, n)."""
        key, context_key = self._keys(owner, subkey)
        rows = np.arange(ROWS, dtype=np.uint32)
        nonces = np.tile(prf.nonces(contexts, context_key), (1, ROWS))
        words = prf.words_at(key, nonces, np.repeat(rows, len(contexts))).reshape(ROWS, -1)
        width = file.header.width
        # The high half of word * width lies in 0 .. width - 1, evenly but for 1 part in 2^32 / width.
        column = (words.astype(np.uint64) * np.uint64(width)) >> np.uint64(32)
        return column.astype(np.int64) + np.arange(ROWS)[:, None] * width

    def _derived(self, owner: str | None, subkey: int) -> tuple[U32, U32 | None]:
        key = self._ring.global_key if owner is None else self._ring.tenants.get(owner)
        if not isinstance(key, SecretKey):
            if owner is None:
                raise DyetraceError("counts of all accounts need the owner's key; a tenant's key gives that tenant's")
            raise DyetraceError(f"tenant {owner!r} is not among the keys that were loaded")
        own = key.derive("ledger", subkey)
        return own.words, prf.context_key_words(own, self._spec.context_width)

    def _checked(self, contexts: npt.ArrayLike) -> U32:
        array = np.asarray(contexts)
        width = self._spec.context_width
        if array.ndim != 2 or array.shape[1] != width:
            raise DyetraceError(f"contexts must have shape (n, {width}), as the spec's (got {array.shape})")
        if array.dtype == np.uint32:
            return array
        if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() <= MISSING):
            raise DyetraceError("contexts must be token ids: whole numbers of 0 or more, or MISSING")
        return array.astype(np.uint32)

    def _check_subkey(self, subkey: int) -> None:
        if not 0 <= subkey < self._spec.subkeys:
            raise DyetraceError(f"sub-key must lie in 0 .. {self._spec.subkeys - 1} (got {subkey})")


def answer_contexts(prompt: npt.ArrayLike, answer: npt.ArrayLike, width: int) -> U32:
    """The contexts that an answer's tokens were chosen in: prompt (m,) and answer (n,) ids -> (n, width).

    Oldest token first; `MISSING` stands before the prompt's beginning. Give all tokens that the engine chose, the end
    token included.
    """
    before = np.asarray(prompt, dtype=np.uint32)[-width:] if width else np.empty(0, dtype=np.uint32)
    chosen = np.asarray(answer, dtype=np.uint32)
    missing = np.full(width - len(before), MISSING, dtype=np.uint32)
    return sliding_window_view(np.concatenate([missing, before, chosen]), width)[: len(chosen)]


@jit()
def _count(table: U16, cells: I64, totals: U64, answers: int, contexts: int) -> None:
    """Raise the counters of an answer's contexts: flat table, cells (rows, n); it doesn't hold the interpreter lock.

    Each counter is raised to the largest of its contexts' new counts, so that none of them reads too low.
    """
    rows, n = cells.shape
    counts = np.empty(n, dtype=np.uint16)
    for i in range(n):
        least = table[cells[0, i]]
        for row in range(1, rows):
            least = min(least, table[cells[row, i]])
        counts[i] = least + 1 if least < LARGEST_COUNT else least
    for i in range(n):
        for row in range(rows):
            if table[cells[row, i]] < counts[i]:
                table[cells[row, i]] = counts[i]
    totals[1] += contexts
    totals[0] += answers


def _distinct(contexts: U32) -> U32:
    """The distinct rows, in some order."""
    if len(contexts) < 2:
        return contexts
    ordered = contexts[np.lexsort(contexts.T)]
    fresh = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(1)])
    distinct: U32 = ordered[fresh]
    return distinct


def _check(spec: WatermarkSpec, ring: KeyRing, *, write: bool) -> None:
    check_key(spec, ring.master_fingerprint)
    if spec.context_width < 1:
        raise DyetraceError(
            "a spec with context_width 0 has one context alone, so there is nothing for a ledger to count"
        )
    if write and not isinstance(ring.global_key, SecretKey):
        raise DyetraceError(
            "writing a ledger needs the owner's key; a tenant's key can only look up that tenant's counts"
        )
