"""The commands of whoever marks text: keys, specs and commitments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from detect.cli.models import model_folder
from detect.cli.options.marking import Commit, Keygen, Spec, VerifyCommitment
from detect.cli.results import print_either, print_result
from detect.cli.working import say
from detect.records.results import CommitmentChecked, CommitmentMade, KeyMade, SpecMade
from watermark.commitment import commit as make_commitment
from watermark.commitment import (
    load_commitment,
    load_opening,
    opening_path,
    stated_date,
    verify,
    write_commitment,
)
from watermark.errors import DyetraceError, EvidenceError
from watermark.files.writing import check_output
from watermark.keys import SecretKey, TenantKey, load_master, load_owner_key, source_path, write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, is_spec, load_spec, write_spec


def keygen(asked: Keygen) -> None:
    """Write a key."""
    check_output(asked.path)
    new: SecretKey | TenantKey
    if asked.tenant is None:
        if asked.key is not None:
            raise DyetraceError("--key goes with --tenant: a new master key is drawn at random")
        if asked.epoch is not None:
            raise DyetraceError("--epoch goes with --tenant: a master key serves all epochs")
        new = SecretKey.generate()
        made = KeyMade(path=str(asked.path), kind="master", fingerprint=new.fingerprint)
        what = f"fingerprint {new.fingerprint}); keep it secret and backed up: without it nothing can be proven"
    else:
        if asked.key is None:
            raise DyetraceError("--tenant needs the master key: add --key file:PATH")
        new = TenantKey.from_master(load_master(asked.key), asked.tenant, asked.epoch or 0)
        made = KeyMade(
            path=str(asked.path),
            kind="tenant",
            fingerprint=new.master_fingerprint,
            tenant=asked.tenant,
            epoch=new.epoch,
        )
        what = (
            f"account {asked.tenant}, epoch {new.epoch}, of the key {new.master_fingerprint}); keep it secret: whoever "
            "has it can mark as this account. It can be derived again from the owner's key"
        )
    write_key_file(asked.path, new)
    say(f"wrote {asked.path} ({what}")
    print_either(made.fingerprint, made, asked.as_json)


def spec(asked: Spec) -> None:
    """Write a spec."""
    path = asked.path
    check_output(path, inputs=[source_path(asked.key)], kind="a watermark spec", is_kind=is_spec, force=asked.force)
    if asked.tenants and asked.global_share == 1:
        raise DyetraceError(
            "--tenants needs contexts for accounts, but --global-share 1 leaves none: drop one of the two"
        )
    tokenizer = load_tokenizer(model_folder(asked.model))
    share = asked.global_share if asked.global_share is not None else (0.5 if asked.tenants else 1.0)
    made = WatermarkSpec(
        scheme=asked.scheme,
        parameters=named_parameters(asked.params, _number),
        context_width=asked.width,
        subkeys=asked.subkeys,
        global_share=share,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=load_master(asked.key).fingerprint,
        epoch=asked.epoch,
    )
    described = described_spec(made, path)
    write_spec(path, made, replace=asked.force)
    say(f"wrote {path} ({made.spec_id})")
    print_either(made.spec_id, SpecMade(**described), asked.as_json)


def described_spec(made: WatermarkSpec, path: Path) -> dict[str, Any]:
    """What results say of a new spec; what its owner should know is said at once."""
    if made.warning:
        say(f"warning: {made.warning}")
    return {
        "path": str(path),
        "spec_id": made.spec_id,
        "scheme": made.scheme,
        "key_fingerprint": made.key_fingerprint,
        "warnings": [made.warning] if made.warning else [],
    }


def named_parameters(texts: Iterable[str], read: Callable[[str, str], Any]) -> dict[str, Any]:
    """NAME=VALUE of each text, its value as ``read`` makes it of the text and the value; each name once."""
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise DyetraceError(f"--param takes NAME=VALUE (got {text!r}), such as gamma=0.5")
        if name in found:
            raise DyetraceError(f"--param {name} was given twice; give each parameter once")
        found[name] = read(text, value)
    return found


def _number(text: str, value: str) -> int | float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if number != number:
        raise DyetraceError(f"--param takes NAME=NUMBER (got {text!r}), such as gamma=0.25")
    return int(number) if number.is_integer() and "." not in value else number


def commit(asked: Commit) -> None:
    """Write a commitment and its opening."""
    output = asked.output
    check_output(output, inputs=[asked.spec_path, source_path(asked.key)])
    public, opening = make_commitment(load_spec(asked.spec_path), load_owner_key(asked.key))
    beside = write_commitment(output, public, opening)
    say(f"wrote {output} (publish it) and {beside} (keep it with the key): sha256 {public.sha256}")
    made = CommitmentMade(
        path=str(output),
        opening_path=str(beside),
        sha256=public.sha256,
        spec_id=public.spec_id,
        key_fingerprint=public.key_fingerprint,
        created=public.created,
    )
    print_either(public.sha256, made, asked.as_json)


def verify_commitment(asked: VerifyCommitment) -> None:
    """Check a commitment with its opening."""
    public = load_commitment(asked.commitment)
    opened = load_opening(asked.opening or opening_path(asked.commitment))
    made, owner = load_spec(asked.spec_path), load_owner_key(asked.key)
    failed = None
    try:
        verify(public, opened, made, owner)
    except EvidenceError as error:
        failed = error
    if asked.as_json:
        print_result(
            CommitmentChecked(
                path=str(asked.commitment),
                holds=failed is None,
                reason=None if failed is None else str(failed),
                sha256=public.sha256,
                spec_id=public.spec_id,
                key_fingerprint=public.key_fingerprint,
                stated_date=public.created,
            )
        )
    if failed is not None:
        raise failed
    if not asked.as_json:
        click.echo(f"commitment holds: spec {public.spec_id} and key {public.key_fingerprint}, sha256 {public.sha256}")
    say(
        f"The file {stated_date(public)}, which nothing covers and anybody can edit: what shows the date is where and "
        "when this SHA-256 was published."
    )
