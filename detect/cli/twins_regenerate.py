"""`dyetrace twins regenerate`: twins of answers that were served before anybody thought of twins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.cli.options.twins_regenerate import TwinsRegenerate
from detect.cli.results import print_either
from detect.cli.working import doing, note, rest
from detect.interruption import leaves
from detect.keyed.rings import rings_of
from detect.models.seen import model_hash
from detect.records.results import TwinsRegenerated
from detect.student.asking.account import ClientSettings
from detect.student.asking.credentials import given_api_key
from detect.twins.regenerate import check_askable, regenerate_from
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, load_master
from watermark.models.folder import check_folder, load_model
from watermark.regenerate import MODEL, UNSERVED, check_drawable
from watermark.regenerate import regenerate as draw
from watermark.spec import WatermarkSpec, load_spec
from watermark.twins.ledger import TwinLedger
from watermark.twins.logged import Logged, Stated, read_logged
from watermark.twins.pair import Pair


def regenerate(asked: TwinsRegenerate) -> None:
    """Draw the twins that are missing."""
    secret = load_master(asked.twin_key)
    doing("reading the served answers")
    stated = Stated(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        max_tokens=asked.max_tokens,
        system=asked.system,
        model=asked.model_name,
    )
    logged = read_logged(asked.served, secret, stated)
    for one in logged:
        _check_name(one, asked)
    leaves(f"the pairs that were drawn are in {asked.ledger}, and the same command goes on from there")
    refused = _ask(asked, secret, logged) if "://" in asked.model else _draw(asked, secret, logged)
    rest()
    with TwinLedger.open(asked.ledger, secret) as ledger:
        mine = [pair for pair in ledger.pairs() if pair.id in {one.id for one in logged}]
        found = TwinsRegenerated(
            path=str(asked.ledger),
            served=len(logged),
            pairs=sum(one.id in ledger for one in logged),
            tied=sum(pair.tied for pair in mine),
            refused=refused,
            unserved=asked.unserved,
            head=ledger.head,
            root=ledger.root(),
        )
    note(
        f"{asked.ledger} has twins of {found.pairs:,} of {found.served:,} answers; {found.tied:,} of them are the same "
        "text and say nothing"
    )
    if refused:
        note(f"the endpoint refused {refused:,} requests, which stay without a twin")
    print_either(found.root, found, asked.as_json)


def _check_name(one: Logged, asked: TwinsRegenerate) -> None:
    """Refuse an answer of a model that is called otherwise than the one that is given."""
    name = one.request.get("model")
    if name is None:
        return
    by_url = "://" in asked.model
    given = asked.model_name or (name if by_url else Path(asked.model).name)
    if given != name:
        raise DyetraceError(
            f"{one.where} was made by model {name!r}, and {given!r} is given; give the model that made it, or say by "
            f"--model-name {name!r} that this is it"
        )


def _draw(asked: TwinsRegenerate, secret: SecretKey, logged: Sequence[Logged]) -> int:
    folder = Path(asked.model).expanduser()
    check_folder(folder)
    spec, ring = _watermark(asked, logged)
    doing("hashing and loading the model")
    sha256 = model_hash(folder)
    for one in logged:
        if one.model_sha256 is not None and one.model_sha256 != sha256:
            raise DyetraceError(
                f"{one.where} was made by the model with hash {one.model_sha256[:16]}, and {folder} has {sha256[:16]}; "
                "give the model that made it"
            )
    model, tokenizer = load_model(folder, asked.dtype, note)
    check_drawable(tokenizer, logged, spec)
    engine = _engine(asked, {"name": "transformers", "model": folder.name, MODEL: sha256, "dtype": asked.dtype})
    with TwinLedger.open(asked.ledger, secret, write=True) as ledger:
        done = _had(asked, ledger, logged)
        doing("drawing", done, len(logged), "twins")
        made = draw(
            model, tokenizer, logged, secret, engine=engine, have=ledger, batch=asked.batch, spec=spec, ring=ring
        )
        for pairs in made:
            ledger.append_many(pairs)
            done += len(pairs)
            doing("drawing", done, len(logged), "twins")
    return 0


def _ask(asked: TwinsRegenerate, secret: SecretKey, logged: Sequence[Logged]) -> int:
    check_askable(asked.model, logged)
    if asked.spec_path is not None or asked.key is not None:
        raise DyetraceError("--spec and --key go with a model's folder: an endpoint marks, or doesn't, by itself")
    key = given_api_key(asked.api_key_source, asked.api_key_header)
    settings = ClientSettings(timeout=asked.timeout, most=asked.concurrency, attempts=asked.attempts)
    with TwinLedger.open(asked.ledger, secret, write=True) as ledger:
        had = _had(asked, ledger, logged)
        doing("drawing", had, len(logged), "twins")

        def store(pair: Pair) -> None:
            ledger.append(pair)

        return regenerate_from(
            asked.model,
            logged,
            store,
            key=key,
            have=ledger,
            engine=_engine(asked, {}),
            settings=settings,
            progress=lambda drawn: doing("drawing", had + drawn, len(logged), "twins"),
        )


def _had(asked: TwinsRegenerate, ledger: TwinLedger, logged: Sequence[Logged]) -> int:
    """How many have a twin already; a ledger holds either pairs that were served or pairs that weren't."""
    first = next(ledger.pairs(), None)
    if first is not None and (UNSERVED in first.engine) != asked.unserved:
        holds = "answers that were never served" if UNSERVED in first.engine else "answers that were served"
        raise DyetraceError(f"{asked.ledger} holds twins of {holds}; keep the others in a ledger of their own")
    had = sum(one.id in ledger for one in logged)
    if had:
        note(f"{had:,} twins are in {asked.ledger} already; going on from there")
    return had


def _engine(asked: TwinsRegenerate, engine: dict[str, str]) -> dict[str, str]:
    return {**engine, UNSERVED: "true"} if asked.unserved else engine


def _watermark(asked: TwinsRegenerate, logged: Sequence[Logged]) -> tuple[WatermarkSpec | None, KeyRing | None]:
    if asked.spec_path is None:
        if asked.key is not None:
            raise DyetraceError("--key needs --spec: without a spec nothing is marked")
        return None, None
    if asked.key is None:
        raise DyetraceError("--spec needs --key")
    spec = load_spec(asked.spec_path)
    accounts = sorted({one.tenant for one in logged if one.tenant is not None})
    (ring,) = rings_of(asked.key, [spec], accounts)
    return spec, ring
