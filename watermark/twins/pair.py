"""`Pair`: two answers to one request by the same model under the same settings, one served and one never shown.

Everything here but `Pair.sign` is fixed before the coin matters: what looks at a pair goes by `Pair.sides`, whose order
the coin has no part in, and the coin enters at the very end, as a sign.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from watermark.keys.secret import SecretKey

NONCE_BYTES = 16


class TwinAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the two answers.

    Attributes
    ----------
    text
        As the client got it or would have got it.
    token_ids
        In the model's vocabulary; null where the engine did not say them.
    finish_reason
        "stop", "length" and so on; null where the engine did not say it.
    """

    text: str
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Two answers to one request.

    Attributes
    ----------
    id
        The nonce, 32 hex digits, drawn at random before either answer existed.
    made
        When the request came, UTC with microseconds, before either answer existed: bets go in this order, and when an
        answer ends must have no say in it (`request_time`).
    account
        Whose request it was; null for nobody's in particular.
    request
        The JSON that the engine was asked with: "messages" or "prompt", "model", and all settings; no secret.
    answers
        In the order in which the engine gave them.
    served
        Which of them the client got: 0 or 1.
    level
        "withheld": the coin was tossed when the request came, and the other answer was never shown to anybody.
        "regenerated": the served answer is of the past, and its twin was drawn later by the same model.
    proof
        Hex HMAC-SHA-256 of ``id`` under the coin key, whose lowest bit is ``served``; null for regenerated twins.
    prompt_token_ids
        What the model read, where the engine says it.
    engine
        What made them: names, versions, hashes.
    """

    id: str
    made: str
    account: str | None = None
    request: dict[str, Any]
    answers: tuple[TwinAnswer, TwinAnswer]
    served: Literal[0, 1]
    level: Literal["withheld", "regenerated"] = "withheld"
    proof: str | None = None
    prompt_token_ids: list[int] | None = None
    engine: dict[str, str] = {}

    @property
    def prompt(self) -> str | list[dict[str, Any]]:
        """What was asked: the messages of a chat, or a plain string."""
        messages = self.request.get("messages")
        found: str | list[dict[str, Any]] = self.request.get("prompt", "") if messages is None else messages
        return found

    @property
    def tied(self) -> bool:
        """Whether both answers are the same text: then the coin decided nothing, and the pair says nothing."""
        return self.answers[0].text == self.answers[1].text

    @property
    def sides(self) -> tuple[TwinAnswer, TwinAnswer]:
        """Both answers in an order that neither the coin nor the engine had a say in: by a hash of nonce and text."""
        first = self._first
        return self.answers[first], self.answers[1 - first]

    @property
    def sign(self) -> Literal[1, -1]:
        """1 where the first of `sides` was served, -1 where the second: the one thing that the coin decides."""
        return 1 if self.served == self._first else -1

    @property
    def _first(self) -> int:
        def rank(answer: TwinAnswer) -> bytes:
            text = answer.text.encode("utf-8", "surrogatepass")
            return hashlib.sha256(bytes.fromhex(self.id) + text).digest()

        return 0 if rank(self.answers[0]) <= rank(self.answers[1]) else 1


def new_nonce() -> str:
    """A fresh pair's name: 16 random bytes, hex."""
    return secrets.token_hex(NONCE_BYTES)


def request_time() -> str:
    """Now, as `Pair.made` has it: to be taken when the request comes, with the nonce."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def coin_key(secret: SecretKey) -> SecretKey:
    """The key that coins are tossed under: derived from the owner's twin key, which is no watermark's key."""
    return secret.derive("coin")


def coin_proof(key: SecretKey, nonce: str) -> str:
    """Hex HMAC-SHA-256 (RFC 2104) of a nonce under the coin key: pseudo-random to whoever has not the key."""
    return hmac.new(bytes.fromhex(key.reveal_hex()), b"dyetrace-twin\0" + bytes.fromhex(nonce), "sha256").hexdigest()


def tossed(proof: str) -> Literal[0, 1]:
    """Which answer a coin's proof says is served: its lowest bit."""
    return 1 if int(proof[-1], 16) & 1 else 0


def is_twinned(key: SecretKey, nonce: str, share: float) -> bool:
    """Whether a request is one of the share that gets a twin: its nonce decides, and nothing of its text or its coin.

    Parameters
    ----------
    key
        The coin key.
    nonce
        The request's, drawn when it came.
    share
        Of all requests, 0 to 1.

    Examples
    --------
    >>> key = coin_key(SecretKey(bytes(32)))
    >>> sum(is_twinned(key, f"{i:032x}", 0.25) for i in range(1000))
    243
    """
    message = b"dyetrace-twinned\0" + bytes.fromhex(nonce)
    number = hmac.new(bytes.fromhex(key.reveal_hex()), message, "sha256").digest()[:8]
    return int.from_bytes(number) < round(share * 2**64)
