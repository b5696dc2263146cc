"""Which requests get a second answer, which of the two is served, and that the pair is on record before it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watermark.errors import DyetraceError
from watermark.keys.secret import SecretKey
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, TwinAnswer, coin_key, coin_proof, is_twinned, tossed

SUBKEYS = "subkeys"
"""Name in `Pair.engine` of the sub-keys that marked both answers, in their order."""


def check_share(share: float) -> None:
    """Raise DyetraceError unless a share of requests lies in (0, 1]."""
    if not 0 < share <= 1:
        raise DyetraceError(f"the share of requests that get a twin must lie in (0, 1] (got {share:g}), such as 0.02")


@dataclass(frozen=True, slots=True)
class Twinning:
    """How twins are made.

    Attributes
    ----------
    ledger
        Open for writing.
    secret
        The twin key.
    share
        Of requests that get a twin, in (0, 1].
    settings
        What every request was asked with beside its prompt: "model", "temperature" and so on.
    engine
        What answers: names, versions, hashes.
    """

    ledger: TwinLedger
    secret: SecretKey
    share: float
    settings: dict[str, Any]
    engine: dict[str, str]

    def chosen(self, nonces: Sequence[str]) -> list[str | None]:
        """The nonces of those requests that get a twin, None in the place of the others."""
        coins = coin_key(self.secret)
        return [nonce if is_twinned(coins, nonce, self.share) else None for nonce in nonces]

    def pair(
        self,
        nonce: str,
        came: str,
        asked: dict[str, Any],
        answers: tuple[TwinAnswer, TwinAnswer],
        *,
        account: str | None,
        prompt_token_ids: list[int],
        subkeys: Sequence[int] = (),
    ) -> Pair:
        """A pair with its coin.

        Parameters
        ----------
        nonce
            The request's.
        came
            When it came, taken with the nonce and before either answer was drawn (`watermark.twins.pair.request_time`).
        asked
            "messages" or "prompt".
        answers
            In the order in which they were drawn; the coin was fixed by the nonce before.
        account, prompt_token_ids
            Whose request it was, and what the model read.
        subkeys
            Those that marked the answers, in their order; empty where nothing did.
        """
        proof = coin_proof(coin_key(self.secret), nonce)
        return Pair(
            id=nonce,
            made=came,
            account=account,
            request={**asked, **self.settings},
            answers=answers,
            served=tossed(proof),
            proof=proof,
            prompt_token_ids=prompt_token_ids,
            engine={**self.engine, SUBKEYS: " ".join(map(str, subkeys))} if subkeys else self.engine,
        )

    def keep(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Put pairs on record and return what is on record, which is what may be served.

        Of a pair that was on record already, as after a kill between keeping and serving, the first stays: a coin is
        tossed once, and of two answers that were drawn no third is chosen.

        Raises
        ------
        DyetraceError
            A pair was erased before it was served.
        """
        had = {pair.id for pair in pairs if pair.id in self.ledger}
        self.ledger.append_many([pair for pair in pairs if pair.id not in had])
        recorded = {one.pair.id: one.pair for one in self.ledger.stored(had)} if had else {}
        for pair_id in had - recorded.keys():
            raise DyetraceError(
                f"pair {pair_id} was erased from {self.ledger.path} before its answer was written; begin anew with "
                "another output"
            )
        return [recorded.get(pair.id, pair) for pair in pairs]
