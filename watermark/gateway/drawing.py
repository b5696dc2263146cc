"""`Drawing`: two answers under way, and the rule by which they become a pair, in which the coin has no say.

A pair is kept if both answers are complete, and else dropped, whichever of them is served. Nothing here asks which
one that is, and what happens to the client is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

from watermark.gateway.sides import Odd, Side
from watermark.keys.secret import SecretKey
from watermark.twins.pair import Pair, coin_proof, request_time, tossed

Dropped = (
    Odd
    | Literal[
        "engine refused two",
        "engine refused",
        "engine failed",
        "one answer",
        "not understood",
        "took too long",
        "too large",
        "gateway ended",
        "not written",
    ]
)
"""Why two answers made no pair."""


class Drawing:
    """Two answers to one request, from the toss of the coin until both are complete or the pair is dropped.

    To be made when the request comes, whose time is then the pair's.

    Parameters
    ----------
    coin
        The key that coins are tossed under.
    nonce
        The pair's name, fresh for this request.
    chat, request, account, asked
        What is kept of the request, and how the engine is asked.

    Attributes
    ----------
    served
        Which answer the client gets.
    sides
        Both answers, in the engine's order.
    pair
        Both and the coin, once they are complete.
    dropped
        Why there will be no pair.
    bytes_read
        Of both, as they came over the wire.
    """

    def __init__(
        self,
        coin: SecretKey,
        nonce: str,
        *,
        chat: bool,
        request: dict[str, Any],
        account: str | None,
        asked: str,
    ) -> None:
        self.nonce, self._proof = nonce, coin_proof(coin, nonce)
        # Not when both are complete: who got the shorter one may have sent the next request by then.
        self._made = request_time()
        self.served = tossed(self._proof)
        self.sides = Side(chat), Side(chat)
        self.pair: Pair | None = None
        self.dropped: Dropped | None = None
        self.bytes_read = 0
        self._request, self._account, self._asked = request, account, asked
        self._settled: list[Callable[[], None]] = []

    @property
    def under_way(self) -> bool:
        """Whether it is not known yet whether there is a pair."""
        return self.pair is None and self.dropped is None

    @property
    def tokens(self) -> int:
        """Tokens of both answers."""
        return self.sides[0].tokens + self.sides[1].tokens

    def when_settled(self, call: Callable[[], None]) -> None:
        """Have something called once it is known whether there is a pair."""
        self._settled.append(call)

    def drop(self, reason: Dropped) -> None:
        """Say that there will be no pair."""
        if self.under_way:
            self.dropped = reason
            self._settle()

    def look(self) -> None:
        """See whether both answers are complete by now."""
        if not self.under_way or any(side.finish_reason is None for side in self.sides):
            return
        odd = [side.odd for side in self.sides if side.odd is not None]
        if odd:
            self.drop(min(odd))  # of two reasons the same one, whichever answer has it
            return
        first, second = self.sides
        engine = {"asked": self._asked, "dyetrace": version("dyetrace")} | second.engine | first.engine
        self.pair = Pair(
            id=self.nonce,
            made=self._made,
            account=self._account,
            request=self._request,
            answers=(first.answer, second.answer),
            served=self.served,
            proof=self._proof,
            prompt_token_ids=first.prompt_token_ids or second.prompt_token_ids,
            engine=engine,
        )
        self._settle()

    def end(self) -> None:
        """Say that the engine says no more of them: what is incomplete stays so."""
        self.look()
        lacking = [side for side in self.sides if not side.pieces]
        self.drop("one answer" if len(lacking) == 1 else "unfinished")

    def _settle(self) -> None:
        for call in self._settled:
            call()
