"""The commands of whoever marks text: keys, specs, commitments, marked answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detect.cli.common import KEY_HELP, load_model, load_ring, model_folder, option, progress_bar, required, say
from detect.cli.importing import import_spec
from watermark.errors import DyetraceError


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@option("--tenant", help="Write the key of this account alone, for an outside expert.  [e.g. --tenant acme]")
@option(
    "--epoch",
    type=click.IntRange(0),
    default=0,
    help="With --tenant: of which rotation epoch.  [e.g. --epoch 3]",
)
@option("--key", help=f"With --tenant: the master key. {KEY_HELP}  [e.g. --key file:owner.key]")
def keygen(path: Path, tenant: str | None, epoch: int, key: str | None) -> None:
    """Write a new secret key to PATH, readable by you alone.

    \b
    Example: dyetrace keygen owner.key
             dyetrace keygen acme.key --tenant acme --key file:owner.key
    """
    from watermark.keys import SecretKey, TenantKey, load_master, write_key_file

    new: SecretKey | TenantKey
    if tenant is None:
        if key is not None:
            raise DyetraceError("--key goes with --tenant: a new master key is drawn at random")
        new = SecretKey.generate()
        name = new.fingerprint
    else:
        if key is None:
            raise DyetraceError("--tenant needs the master key: add --key file:PATH")
        new = TenantKey.from_master(load_master(key), tenant, epoch)
        name = f"{new.master_fingerprint}, tenant {tenant}, epoch {epoch}"
    write_key_file(path, new)
    say(f"wrote {path} (fingerprint {name}); keep it secret and backed up: without it nothing can be proven")


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
) -> None:
    """Write a watermark spec, which holds no secret, to PATH; `dyetrace spec import` reads another system's mark.

    \b
    Example: dyetrace spec spec.json --key file:owner.key --model ./my-model --tenants
             dyetrace spec import --help
    """
    from watermark.keys import load_master
    from watermark.spec import WatermarkSpec, write_spec
    from watermark.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    tokenizer = load_tokenizer(model_folder(model_dir))
    share = global_share if global_share is not None else (0.5 if tenants else 1.0)
    made = WatermarkSpec(
        scheme=scheme,
        parameters=dict(_parameter(text) for text in params),
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
    write_spec(path, made)
    say(f"wrote {path} ({made.spec_id})")


def _parameter(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not separator or number != number:
        raise DyetraceError(f"--param takes NAME=NUMBER (got {text!r}), such as gamma=0.25")
    return name, int(number) if number.is_integer() and "." not in value else number


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
def commit(spec_path: Path, key: str, output: Path) -> None:
    """Commit to spec and key: publish the output now, keep the opening with the key.

    \b
    Example: dyetrace commit --spec spec.json --key file:owner.key -o commitment.json
    """
    from watermark.commitment import commit as make
    from watermark.commitment import write_commitment
    from watermark.keys import load_owner_key
    from watermark.spec import load_spec

    public, opening = make(load_spec(spec_path), load_owner_key(key))
    beside = write_commitment(output, public, opening)
    say(f"wrote {output} (publish it) and {beside} (keep it with the key): sha256 {public.sha256}")


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
def verify_commitment(commitment: Path, spec_path: Path, key: str, opening: Path | None) -> None:
    """Check that COMMITMENT was made of this spec and this key.

    \b
    Example: dyetrace verify-commitment commitment.json --spec spec.json --key file:owner.key
    """
    from watermark.commitment import load_commitment, load_opening, opening_path, verify
    from watermark.keys import load_owner_key
    from watermark.spec import load_spec

    public = load_commitment(commitment)
    verify(public, load_opening(opening or opening_path(commitment)), load_spec(spec_path), load_owner_key(key))
    click.echo(f"commitment holds: spec {public.spec_id} and key {public.key_fingerprint}, dated {public.created}")


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
    help="JSONL with text and token ids; - is standard output.  [e.g. -o answers.jsonl]",
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
@option("--seed", type=int, help="Seed of the unmarked randomness, to repeat a run.  [e.g. --seed 1]")
@option("--limit", type=int, help="Only the first N prompts.  [e.g. --limit 10]")
@option("--raw", is_flag=True, help="Do not use the model's chat template.  [e.g. --raw]")
@option(
    "--placebo",
    "as_placebo",
    is_flag=True,
    help="Mark with the placebo key, which is derived from yours: answers to keep, and never to serve to anybody. A "
    "trace runs on them as on real ones (--placebo there) and must find nothing.  [e.g. --placebo]",
)
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
    **sampling: Any,
) -> None:
    """Answer prompts with a local model, marked; JSONL out, one answer a line as soon as its batch is done.

    \b
    Example: echo "Why is the sky blue?" | dyetrace generate --spec spec.json --key file:owner.key
    """
    from watermark.generate import Sampling, generate_answers, read_prompts, write_answers
    from watermark.keys import load_master
    from watermark.placebo import placebo
    from watermark.spec import load_spec

    settings = Sampling(**sampling)
    made = None if spec_path is None else load_spec(spec_path)
    accounts = () if tenant is None else (tenant,)
    ring = None if made is None else load_ring(required(key, "--spec needs --key"), made, accounts)
    if as_placebo:
        if made is None:
            raise DyetraceError("--placebo marks with a key that is derived from yours: give --spec and --key as well")
        made, ring = placebo(made, load_master(required(key, "--spec needs --key")), accounts)
    texts = read_prompts(prompts)[:limit]
    model, tokenizer = load_model(model_dir, dtype)
    answers = generate_answers(model, tokenizer, texts, settings, made, ring, tenant, chat=not raw)
    with progress_bar("answering", len(texts) * settings.samples) as advance:
        write_answers(output, answers, advance)
