from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.watermark.twins.pairs import KEY, pair
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys.secret import SecretKey
from watermark.twins.commitment import (
    TwinCommitment,
    TwinOpening,
    TwinReveal,
    check_committed,
    commit_twins,
    encode_reveal,
    load_reveal,
    load_twin_commitment,
    reveal_twins,
    verify_reveal,
)
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import coin_key, coin_proof, is_twinned, new_nonce, tossed

_replace = msgspec.structs.replace


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[TwinLedger]:
    with TwinLedger.open(tmp_path / "twins.ledger", KEY, write=True) as opened:
        for number in range(7):
            opened.append(pair(number, account="acme" if number % 2 else "zenith"), sync=False)
        yield opened


@pytest.fixture
def shown(ledger: TwinLedger) -> tuple[TwinReveal, TwinCommitment, TwinOpening]:
    commitment, opening = commit_twins(ledger, KEY)
    return reveal_twins(ledger, [pair(2).id, pair(5).id]), commitment, opening


def test_a_reveal_shows_its_pairs_and_holds(shown, tmp_path: Path) -> None:
    reveal, commitment, opening = shown
    assert [one.pair.id for one in reveal.revealed] == [pair(2).id, pair(5).id]
    verify_reveal(reveal, commitment)
    verify_reveal(reveal, commitment, opening)
    path = tmp_path / "reveal.json"
    path.write_bytes(encode_reveal(reveal))
    assert load_reveal(path) == reveal


def test_a_reveal_says_nothing_of_other_pairs(shown) -> None:
    text = encode_reveal(shown[0]).decode()
    for number in (0, 1, 3, 4, 6):
        assert pair(number).id not in text and f"other {number}" not in text


def test_the_commitment_and_reprs_hold_no_secret(shown) -> None:
    _, commitment, opening = shown
    public = msgspec.json.encode(commitment).decode() + repr(opening)
    for secret in (KEY.reveal_hex(), coin_key(KEY).reveal_hex(), opening.salt, pair(2).id, str(pair(2).proof)):
        assert secret not in public


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*path, place))
    else:
        yield path


def _changed(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "changed"
    if isinstance(value, int | float):
        return value + 1
    return "regenerated" if value == "withheld" else value[:-1] + ("0" if value[-1:] != "0" else "1")


def test_every_field_of_a_reveal_that_is_changed_is_found(shown, tmp_path: Path) -> None:
    reveal, commitment, _ = shown
    whole = json.loads(encode_reveal(reveal))
    path = tmp_path / "forged.json"
    places = list(_leaves(whole))
    assert len(places) > 30
    for place in places:
        forged = json.loads(json.dumps(whole))
        holder = forged
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = _changed(holder[place[-1]])
        path.write_text(json.dumps(forged))
        with pytest.raises(DyetraceError, match=r"^[^\n]*$"):
            verify_reveal(load_reveal(path), commitment)


@pytest.mark.parametrize("field", ["root", "pairs", "key_fingerprint", "coin_sha256"])
def test_every_field_of_a_commitment_that_is_changed_is_found(shown, field: str) -> None:
    reveal, commitment, opening = shown
    forged = _replace(commitment, **{field: _changed(getattr(commitment, field))})
    with pytest.raises(EvidenceError):
        verify_reveal(reveal, forged, opening)


@pytest.mark.parametrize("field", ["coin_sha256", "salt", "coin_key"])
@pytest.mark.parametrize("value", [None, "", "zz"])
def test_every_field_of_an_opening_that_is_changed_is_found(shown, field: str, value: str | None) -> None:
    reveal, commitment, opening = shown
    forged = _replace(opening, **{field: _changed(getattr(opening, field)) if value is None else value})
    with pytest.raises(EvidenceError):
        verify_reveal(reveal, commitment, forged)


def test_a_pair_that_was_served_against_its_coin_is_found(ledger: TwinLedger) -> None:
    honest = pair(100)
    ledger.append(_replace(honest, served=1 - honest.served))
    commitment, _ = commit_twins(ledger, KEY)
    with pytest.raises(EvidenceError, match="not served as its coin says"):
        verify_reveal(reveal_twins(ledger, [honest.id]), commitment)


def test_a_coin_that_was_not_tossed_under_the_committed_key_is_found_with_the_opening(ledger: TwinLedger) -> None:
    other = coin_proof(coin_key(SecretKey(bytes(32))), pair(100).id)
    ledger.append(pair(100, proof=other, served=tossed(other)))
    commitment, opening = commit_twins(ledger, KEY)
    reveal = reveal_twins(ledger, [pair(100).id])
    verify_reveal(reveal, commitment)
    with pytest.raises(EvidenceError, match="not of its coin"):
        verify_reveal(reveal, commitment, opening)


def test_twins_that_were_drawn_later_have_no_coin_to_check(ledger: TwinLedger) -> None:
    ledger.append(pair(100, level="regenerated", proof=None, served=0))
    ledger.append(pair(101, proof=None))
    commitment, opening = commit_twins(ledger, KEY)
    verify_reveal(reveal_twins(ledger, [pair(100).id]), commitment, opening)
    with pytest.raises(EvidenceError, match="no proof"):
        verify_reveal(reveal_twins(ledger, [pair(101).id]), commitment)


def test_a_commitment_holds_for_a_ledger_that_grew_and_for_one_whose_accounts_were_erased(ledger: TwinLedger) -> None:
    commitment, opening = commit_twins(ledger, KEY)
    ledger.append(pair(50))
    ledger.erase(account="acme")
    check_committed(ledger, commitment)
    verify_reveal(reveal_twins(ledger, [pair(2).id], commitment), commitment, opening)
    with pytest.raises(EvidenceError, match="another commitment"):
        verify_reveal(reveal_twins(ledger, [pair(2).id]), commitment)
    with pytest.raises(DyetraceError, match="was erased"):
        reveal_twins(ledger, [pair(1).id], commitment)


def test_only_pairs_of_the_ledger_at_its_commitment_are_shown(ledger: TwinLedger) -> None:
    commitment, _ = commit_twins(ledger, KEY)
    ledger.append(pair(50))
    with pytest.raises(DyetraceError, match="younger"):
        reveal_twins(ledger, [pair(50).id], commitment)
    with pytest.raises(DyetraceError, match="not in it"):
        reveal_twins(ledger, [pair(77).id])


def test_a_commitment_to_another_or_shortened_ledger_is_refused(ledger: TwinLedger, tmp_path: Path) -> None:
    commitment, _ = commit_twins(ledger, KEY)
    with TwinLedger.open(tmp_path / "other", KEY, write=True) as other:
        with pytest.raises(EvidenceError, match="were removed"):
            check_committed(other, commitment)
        for number in range(7):
            other.append(pair(number))
        with pytest.raises(EvidenceError, match="another ledger"):
            check_committed(other, commitment)
    with TwinLedger.open(tmp_path / "third", SecretKey(bytes(32)), write=True) as third:
        with pytest.raises(EvidenceError, match="twin key"):
            check_committed(third, commitment)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', "[" * 10**5, "1e999"])
def test_files_that_are_something_else_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    for load in (load_reveal, load_twin_commitment):
        with pytest.raises(DyetraceError, match=r"^[^\n]*$"):
            load(path)
        with pytest.raises(DyetraceError, match="cannot read"):
            load(tmp_path)


def test_coins_are_fair_and_know_nothing_of_who_gets_a_twin() -> None:
    heads = both = twinned = 0
    n, drawn = 20_000, random.Random(1)
    for _ in range(n // 100):
        key = coin_key(SecretKey(drawn.randbytes(32)))
        for _ in range(100):
            nonce = drawn.randbytes(16).hex()
            coin, chosen = tossed(coin_proof(key, nonce)), is_twinned(key, nonce, 0.3)
            heads, twinned, both = heads + coin, twinned + chosen, both + (coin and chosen)
    for found, share in ((heads, 0.5), (twinned, 0.3), (both, 0.15)):
        assert abs(found - n * share) < 4 * (n * share * (1 - share)) ** 0.5


def test_shares_are_kept_at_their_ends_and_grow_by_adding() -> None:
    key = coin_key(KEY)
    nonces = [new_nonce() for _ in range(500)]
    assert not any(is_twinned(key, nonce, 0.0) for nonce in nonces)
    assert all(is_twinned(key, nonce, 1.0) for nonce in nonces)
    some = {nonce for nonce in nonces if is_twinned(key, nonce, 0.1)}
    assert some <= {nonce for nonce in nonces if is_twinned(key, nonce, 0.2)}
