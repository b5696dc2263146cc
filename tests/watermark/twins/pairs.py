"""Pairs for tests."""

from __future__ import annotations

from typing import Any

from watermark.keys.secret import SecretKey
from watermark.twins.pair import Pair, TwinAnswer, coin_key, coin_proof, tossed

KEY = SecretKey(bytes(range(32)))


def pair(number: int, account: str | None = "acme", made: str = "2026-11-30T12:00:00Z", **more: Any) -> Pair:
    """Pair ``number``: its id, texts and coin differ from those of any other."""
    nonce = f"{number:032x}"
    proof = coin_proof(coin_key(KEY), nonce)
    both = TwinAnswer(text=f"one {number}", token_ids=[1, number]), TwinAnswer(text=f"other {number}")
    fields: dict[str, Any] = dict(
        id=nonce,
        made=made,
        account=account,
        request={"prompt": f"ask {number}", "temperature": 0.7},
        answers=both,
        served=tossed(proof),
        proof=proof,
    )
    return Pair(**(fields | more))
