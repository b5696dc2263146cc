"""Pairs with true coins, and ledgers of them, for tests of what is asked about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from watermark.keys import SecretKey, write_key_file
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, TwinAnswer, coin_key, coin_proof, tossed

KEY = SecretKey(bytes(range(32)))
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def twins(
    number: int,
    one: str = "The sea is deep.",
    other: str = "The sea is wide.",
    prompt: Any = "Tell me of the sea.",
    *,
    account: str | None = None,
    key: SecretKey = KEY,
    **more: Any,
) -> Pair:
    """The pair of this number: its id follows from that, its coin from id and key, and it came so many minutes late."""
    nonce = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    proof = coin_proof(coin_key(key), nonce)
    asked = {"messages": [{"role": "user", "content": prompt}]} if isinstance(prompt, str) else {"messages": prompt}
    fields: dict[str, Any] = {
        "id": nonce,
        "made": (START + timedelta(minutes=number)).isoformat(timespec="microseconds"),
        "account": account,
        "request": {**asked, "model": "owner", "max_tokens": 16},
        "answers": (TwinAnswer(text=one, finish_reason="stop"), TwinAnswer(text=other, finish_reason="stop")),
        "served": tossed(proof),
        "proof": proof,
    }
    return Pair(**{**fields, **more})


def ledger_of(folder: Path, pairs: Iterable[Pair], key: SecretKey = KEY) -> Path:
    """A ledger of these pairs, twins.ledger, with its key file twins.key beside it."""
    path = folder / "twins.ledger"
    if not (folder / "twins.key").exists():
        write_key_file(folder / "twins.key", key)
    with TwinLedger.open(path, key, write=True) as ledger:
        ledger.append_many(list(pairs))
    return path
