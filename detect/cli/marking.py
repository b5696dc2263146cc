"""The commands of whoever marks text: keys, specs, commitments, marked answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.common import (
    KEY_HELP,
    force_option,
    load_model,
    load_ring,
    model_folder,
    note,
    option,
    required,
    say,
)
from detect.cli.importing import import_spec, named_parameters
from detect.cli.results import json_option, print_result
from detect.cli.working import doing, rest, working
from detect.interruption import leaves
from watermark.errors import DyetraceError, EvidenceError, MachineError
from watermark.interruption import held

if TYPE_CHECKING:
    from detect.records.results import Generated
    from watermark.generate import Sampling
    from watermark.keys import KeyRing
    from watermark.spec import WatermarkSpec


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@option("--tenant", help="Write the key of this account alone, for an outside expert.  [e.g. --tenant acme]")
@option(
    "--epoch",
    type=click.IntRange(0),
    help="With --tenant: of which rotation epoch; 0 by default.  [e.g. --epoch 3]",
)
@option("--key", help=f"With --tenant: the master key. {KEY_HELP}  [e.g. --key file:owner.key]")
@json_option
def keygen(path: Path, tenant: str | None, epoch: int | None, key: str | None, as_json: bool) -> None:
    """Write a new secret key to PATH, readable by you alone, and print the master key's fingerprint.

    \b
    Example: dyetrace keygen owner.key
             dyetrace keygen acme.key --tenant acme --key file:owner.key
    """
    from detect.records.results import KeyMade
    from watermark.files.writing import check_output
    from watermark.keys import SecretKey, TenantKey, load_master, write_key_file

    check_output(path)
    new: SecretKey | TenantKey
    if tenant is None:
        if key is not None:
            raise DyetraceError("--key goes with --tenant: a new master key is drawn at random")
        if epoch is not None:
            raise DyetraceError("--epoch goes with --tenant: a master key serves all epochs")
        new = SecretKey.generate()
        made = KeyMade(path=str(path), kind="master", fingerprint=new.fingerprint)
        name = new.fingerprint
    else:
        if key is None:
            raise DyetraceError("--tenant needs the master key: add --key file:PATH")
        new = TenantKey.from_master(load_master(key), tenant, epoch or 0)
        made = KeyMade(
            path=str(path), kind="tenant", fingerprint=new.master_fingerprint, tenant=tenant, epoch=new.epoch
        )
        name = f"{new.master_fingerprint}, tenant {tenant}, epoch {new.epoch}"
    write_key_file(path, new)
    say(f"wrote {path} (fingerprint {name}); keep it secret and backed up: without it nothing can be proven")
    if as_json:
        print_result(made)
    else:
        click.echo(made.fingerprint)


class _SpecCommand(click.Command):
    """Writes a spec of one's own mark; with ``import`` in PATH's place that of another system's."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        if args[:1] == ["import"]:
            return import_spec.make_context(f"{info_name} import", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_SpecCommand)
@click.argument("path", type=click.Path(path_type=Path))
@option("--key", required=True, help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
@option(
    "--model",
    "model_dir",
    help="Folder of the model to be marked, for its tokenizer.json; by default the demo model.  "
    "[e.g. --model ./my-model]",
)
@option(
    "--scheme",
    default="gumbel",
    help="gumbel, tournament, green_list, or an installed plugin's.  [e.g. --scheme green_list]",
)
@option(
    "--param",
    "params",
    multiple=True,
    help="A parameter of the scheme, NAME=VALUE; may be repeated.  [e.g. --param gamma=0.5 --param delta=2]",
)
@option(
    "--width",
    type=int,
    default=2,
    help="Context width h. More than 2 leaves students untraceable.  [e.g. --width 2]",
)
@option(
    "--subkeys",
    type=int,
    default=4,
    help="Pool of sub-keys, one drawn per request: diversity against detection power.  [e.g. --subkeys 8]",
)
@option("--tenants", is_flag=True, help="Give half of the contexts to each account's own key.  [e.g. --tenants]")
@option(
    "--global-share",
    type=float,
    help="Share of contexts for the global key (1: no tenants).  [e.g. --global-share 0.7]",
)
@option("--epoch", type=int, default=0, help="Key rotation number.  [e.g. --epoch 3]")
@force_option("spec")
@json_option
def spec(
    path: Path,
    key: str,
    model_dir: str | None,
    scheme: str,
    params: tuple[str, ...],
    width: int,
    subkeys: int,
    tenants: bool,
    global_share: float | None,
    epoch: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write a watermark spec, which holds no secret, to PATH, and print its id; `dyetrace spec import` reads another
    system's mark.

    \b
    Example: dyetrace spec spec.json --key file:owner.key --model ./my-model --tenants
             dyetrace spec import --help
    """
    from detect.records.results import SpecMade
    from watermark.files.writing import check_output
    from watermark.keys import load_master, source_path
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
    from watermark.spec import WatermarkSpec, is_spec, write_spec

    check_output(path, inputs=[source_path(key)], kind="a watermark spec", is_kind=is_spec, force=force)
    if tenants and global_share == 1:
        raise DyetraceError(
            "--tenants needs contexts for accounts, but --global-share 1 leaves none: drop one of the two"
        )
    tokenizer = load_tokenizer(model_folder(model_dir))
    share = global_share if global_share is not None else (0.5 if tenants else 1.0)
    made = WatermarkSpec(
        scheme=scheme,
        parameters=named_parameters(params, _number),
        context_width=width,
        subkeys=subkeys,
        global_share=share,
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=load_master(key).fingerprint,
        epoch=epoch,
    )
    if made.warning:
        say(f"warning: {made.warning}")
    write_spec(path, made, replace=force)
    say(f"wrote {path} ({made.spec_id})")
    if not as_json:
        click.echo(made.spec_id)
        return
    print_result(
        SpecMade(
            path=str(path),
            spec_id=made.spec_id,
            scheme=made.scheme,
            key_fingerprint=made.key_fingerprint,
            warnings=[made.warning] if made.warning else [],
        )
    )


def _number(text: str, value: str) -> int | float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if number != number:
        raise DyetraceError(f"--param takes NAME=NUMBER (got {text!r}), such as gamma=0.25")
    return int(number) if number.is_integer() and "." not in value else number


@click.command()
@option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The spec to commit to.  [e.g. --spec spec.json]",
)
@option("--key", required=True, help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the public commitment goes; the opening goes beside it as NAME.opening.  [e.g. -o commitment.json]",
)
@json_option
def commit(spec_path: Path, key: str, output: Path, as_json: bool) -> None:
    """Commit to spec and key: publish the output now, keep the opening with the key. Prints the commitment's SHA-256.

    \b
    Example: dyetrace commit --spec spec.json --key file:owner.key -o commitment.json
    """
    from detect.records.results import CommitmentMade
    from watermark.commitment import commit as make
    from watermark.commitment import write_commitment
    from watermark.files.writing import check_output
    from watermark.keys import load_owner_key, source_path
    from watermark.spec import load_spec

    check_output(output, inputs=[spec_path, source_path(key)])
    public, opening = make(load_spec(spec_path), load_owner_key(key))
    beside = write_commitment(output, public, opening)
    say(f"wrote {output} (publish it) and {beside} (keep it with the key): sha256 {public.sha256}")
    if not as_json:
        click.echo(public.sha256)
        return
    print_result(
        CommitmentMade(
            path=str(output),
            opening_path=str(beside),
            sha256=public.sha256,
            spec_id=public.spec_id,
            key_fingerprint=public.key_fingerprint,
            created=public.created,
        )
    )


@click.command("verify-commitment")
@click.argument("commitment", type=click.Path(path_type=Path))
@option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The spec that was committed to.  [e.g. --spec spec.json]",
)
@option("--key", required=True, help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
@option(
    "--opening",
    type=click.Path(path_type=Path),
    help="The opening; by default COMMITMENT.opening.  [e.g. --opening commitment.json.opening]",
)
@json_option
def verify_commitment(commitment: Path, spec_path: Path, key: str, opening: Path | None, as_json: bool) -> None:
    """Check that COMMITMENT was made of this spec and this key. When it was made it can't show: that is shown by where
    and when its SHA-256 was published.

    \b
    Example: dyetrace verify-commitment commitment.json --spec spec.json --key file:owner.key
    """
    from detect.records.results import CommitmentChecked
    from watermark.commitment import load_commitment, load_opening, opening_path, stated_date, verify
    from watermark.keys import load_owner_key
    from watermark.spec import load_spec

    public = load_commitment(commitment)
    opened, made, owner = load_opening(opening or opening_path(commitment)), load_spec(spec_path), load_owner_key(key)
    failed = None
    try:
        verify(public, opened, made, owner)
    except EvidenceError as error:
        failed = error
    if as_json:
        print_result(
            CommitmentChecked(
                path=str(commitment),
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
    if not as_json:
        click.echo(f"commitment holds: spec {public.spec_id} and key {public.key_fingerprint}, sha256 {public.sha256}")
    say(
        f"The file {stated_date(public)}, which nothing covers and anybody can edit: what shows the date is where and "
        "when this SHA-256 was published."
    )


@click.command()
@option(
    "--prompts",
    default="-",
    help="File with one prompt a line, or JSONL with a 'prompt' field; - is standard input.  "
    "[e.g. --prompts prompts.txt]",
)
@option(
    "-o",
    "--output",
    default="-",
    help="JSONL with text and token ids; - is standard output. A file that isn't whole yet is FILE.partial.  "
    "[e.g. -o answers.jsonl]",
)
@option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    help="The watermark; without it the text is not marked.  [e.g. --spec spec.json]",
)
@option("--key", help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
@option(
    "--tenant",
    help="The account that these answers are for, where the spec has tenants.  [e.g. --tenant acme]",
)
@option("--model", "model_dir", help="A local model folder; by default the demo model.  [e.g. --model ./my-model]")
@option(
    "--dtype",
    default="bfloat16",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Arithmetic of the model.  [e.g. --dtype float32]",
)
@option("--max-new-tokens", type=int, default=200, help="Longest answer, in tokens.  [e.g. --max-new-tokens 400]")
@option("--temperature", type=float, default=1.0, help="Sampling temperature.  [e.g. --temperature 0.7]")
@option("--top-k", type=int, default=0, help="Keep the k likeliest tokens; 0 keeps all.  [e.g. --top-k 50]")
@option("--top-p", type=float, default=1.0, help="Keep the likeliest tokens of this mass.  [e.g. --top-p 0.95]")
@option("--samples", type=int, default=1, help="Answers per prompt.  [e.g. --samples 4]")
@option(
    "--fresh-share",
    type=float,
    default=0.0,
    help="Share of positions left unmarked for diversity.  [e.g. --fresh-share 0.1]",
)
@option("--batch", type=int, default=16, help="Prompts at a time.  [e.g. --batch 8]")
@option(
    "--seed",
    type=int,
    help="Seed of the unmarked randomness; sub-keys are drawn anew for each output.  [e.g. --seed 1]",
)
@option("--limit", type=int, help="Only the first N prompts.  [e.g. --limit 10]")
@option("--raw", is_flag=True, help="Do not use the model's chat template.  [e.g. --raw]")
@option(
    "--placebo",
    "as_placebo",
    is_flag=True,
    help="Mark with the placebo key, which is derived from yours: answers to keep, and never to serve to anybody. A "
    "trace runs on them as on real ones (--placebo there) and must find nothing.  [e.g. --placebo]",
)
@force_option("file of answers")
@json_option
@working
def generate(
    prompts: str,
    output: str,
    spec_path: Path | None,
    key: str | None,
    tenant: str | None,
    model_dir: str | None,
    dtype: str,
    limit: int | None,
    raw: bool,
    as_placebo: bool,
    force: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Answer prompts with a local model, marked; JSONL out, one answer a line as soon as its batch is done.

    With -o FILE, answers go to FILE.partial, which becomes FILE when all are there, and standard output has FILE's
    SHA-256 in the end. After an interrupt, a crash or a full disk the same command goes on from there: whole batches
    stay, and a batch that was lost is made again as it was, since all that is drawn comes from random bytes that
    FILE.partial.json keeps.

    \b
    Example: echo "Why is the sky blue?" | dyetrace generate --spec spec.json --key file:owner.key
             dyetrace generate --prompts prompts.txt --spec spec.json --key file:owner.key -o answers.jsonl
    """
    from watermark.files.partial import PartialFile
    from watermark.generate import Sampling, check_folder_fits, check_request, read_prompts, settings_of

    if as_json and output == "-":
        raise DyetraceError(
            "--json goes with -o FILE: without it standard output has the answers, which are JSON lines"
        )
    settings = Sampling(**sampling)
    if limit is not None and limit < 1:
        raise DyetraceError(f"--limit must be 1 or more (got {limit})")
    _check_generated(output, prompts, spec_path, key, force)
    made, ring = _watermark(spec_path, key, tenant, as_placebo)
    doing("reading the prompts and the model's settings")
    texts = read_prompts(prompts)[:limit]
    check_request(texts, settings, made, ring, tenant)
    folder = Path(model_folder(model_dir)).expanduser()
    check_folder_fits(folder, texts, settings, made)
    how = _Answering(folder, dtype, texts, settings, made, ring, tenant, not raw)
    if output == "-":
        leaves("the answers that were printed are whole, and none is kept: give -o FILE to go on from where it was")
        how.run(_to_standard_output)
        return
    more = {"dtype": dtype, "raw": raw, "placebo": as_placebo}
    described = settings_of(texts, settings, made, tenant, folder, **more)
    group = settings.batch * settings.samples
    with PartialFile(Path(output), described, group, replace=force) as partial:
        had = min(partial.groups * group, how.total)
        if had:
            note(f"{had:,} answers are in {partial.path} already; going on from there")
        leaves(
            lambda: (
                f"{min(partial.groups * group, how.total):,} of {how.total:,} answers are kept in {partial.path}, and "
                "the same command goes on from there"
            )
        )
        how.run(partial.append, partial.run, partial.groups)
        with held():
            partial.finish()
            leaves(f"{output} is whole")
    doing("hashing the answers")
    written = _written(Path(output), how, had, as_placebo)
    rest()
    note(f"wrote {output}: {written.answers:,} answers of {written.tokens:,} tokens")
    if as_json:
        print_result(written)
    else:
        click.echo(written.sha256)


def _written(path: Path, how: _Answering, kept: int, placebo: bool) -> Generated:
    """Read the answers once more, as they lie on the disk."""
    import hashlib

    import msgspec

    from detect.records.results import Generated
    from watermark.generate import Answer

    digest = hashlib.sha256()
    size = answers = tokens = 0
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            size, answers = size + len(line), answers + 1
            tokens += len(msgspec.json.decode(line, type=Answer).token_ids)
    return Generated(
        path=str(path),
        sha256=digest.hexdigest(),
        bytes=size,
        prompts=len(how.prompts),
        answers=answers,
        tokens=tokens,
        kept=kept,
        spec_id=None if how.spec is None else how.spec.spec_id,
        tenant=how.tenant,
        placebo=placebo,
    )


def _check_generated(output: str, prompts: str, spec_path: Path | None, key: str | None, force: bool) -> None:
    """Refuse an output that is one of the files that the run reads, or in the way of something else."""
    from os.path import realpath  # which takes links in a circle as they are

    from watermark.files.partial import partial_paths
    from watermark.files.writing import check_output
    from watermark.generate import is_answers
    from watermark.keys import source_path

    if output == "-":
        if force:
            raise DyetraceError("--force goes with -o FILE: standard output replaces nothing")
        return
    inputs = [None if prompts == "-" else Path(prompts), spec_path, None if key is None else source_path(key)]
    check_output(Path(output), inputs=inputs, kind="a file of answers", is_kind=is_answers, force=force)
    for beside in partial_paths(Path(output)):
        if any(source is not None and realpath(beside) == realpath(source) for source in inputs):
            raise DyetraceError(
                f"{beside} is read by this command and is where answers go first; choose another output"
            )


def _watermark(
    spec_path: Path | None, key: str | None, tenant: str | None, as_placebo: bool
) -> tuple[WatermarkSpec | None, KeyRing | None]:
    """The watermark to mark with and its keys, or neither."""
    from watermark.keys import load_master
    from watermark.keys.placebo import placebo
    from watermark.spec import load_spec

    if spec_path is None:
        if as_placebo:
            raise DyetraceError("--placebo marks with a key that is derived from yours: give --spec and --key as well")
        if key is not None:
            raise DyetraceError("--key needs --spec: without a spec nothing is marked")
        return None, None
    made = load_spec(spec_path)
    accounts = () if tenant is None else (tenant,)
    source = required(key, "--spec needs --key")
    ring = load_ring(source, made, accounts)
    return placebo(made, load_master(source), accounts) if as_placebo else (made, ring)


@dataclass(frozen=True, slots=True)
class _Answering:
    """A checked run of `generate`, which needs nothing but its model."""

    folder: Path
    dtype: str
    prompts: list[str]
    sampling: Sampling
    spec: WatermarkSpec | None
    ring: KeyRing | None
    tenant: str | None
    chat: bool

    @property
    def total(self) -> int:
        """How many answers there will be."""
        return len(self.prompts) * self.sampling.samples

    def run(self, write: Callable[[bytes], None], run: bytes | None = None, first: int = 0) -> None:
        """Answer batch after batch from number ``first`` on, and hand over the lines of each."""
        from watermark.generate import encode_answers, generate_batches

        done = min(first * self.sampling.batch * self.sampling.samples, self.total)
        if done == self.total:
            return
        doing("loading the model")
        model, tokenizer = load_model(str(self.folder), self.dtype)
        doing("answering", done, self.total, "answers")
        marked = (self.sampling, self.spec, self.ring, self.tenant)
        for answers in generate_batches(model, tokenizer, self.prompts, *marked, chat=self.chat, run=run, first=first):
            write(encode_answers(answers))
            done += len(answers)
            doing("answering", done, self.total, "answers")


def _to_standard_output(lines: bytes) -> None:
    if sys.stdout.isatty():
        rest()
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the command line has a line for that
    except OSError as error:
        raise MachineError(f"cannot write standard output: {error.strerror}") from None
