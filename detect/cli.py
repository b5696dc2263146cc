"""The `dyetrace` command. Each command parses its options, calls one function of the packages and prints its result.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from watermark.keys import KeyRing, SecretKey, TenantKey
    from watermark.spec import WatermarkSpec

EXIT_BAD_INPUT = 2
EXIT_FOUND = 183

_KEY_HELP = (
    "Where the secret key is: file:PATH, env:NAME or cmd:COMMAND (any command that prints it). "
    "Never give the key itself: other users see process arguments."
)


class _Group(click.Group):
    """Turns every `DyetraceError` into one line on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DyetraceError as error:
            click.echo(f"dyetrace: {' '.join(str(error).split())}", err=True)
            ctx.exit(EXIT_BAD_INPUT)


def _option(*names: str, **options: Any) -> Callable[[Any], Any]:
    options.setdefault("show_default", options.get("default") is not None)
    return click.option(*names, **options)


def _say(message: str) -> None:
    click.echo(message, err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dyetrace")
def main() -> None:
    """Watermark what a language model says; prove later where it went.

    \b
    dyetrace demo                                       the whole job on a real model
    dyetrace keygen owner.key                           a secret key
    dyetrace spec spec.json --key file:owner.key        what both sides must agree on
    dyetrace generate --spec spec.json --key file:owner.key --prompts prompts.txt
    dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key
    """


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@_option("--tenant", help="Write the key of this account alone, for an outside expert.  [e.g. --tenant acme]")
@_option(
    "--epoch",
    type=click.IntRange(0),
    default=0,
    help="With --tenant: of which rotation epoch.  [e.g. --epoch 3]",
)
@_option("--key", help=f"With --tenant: the master key. {_KEY_HELP}  [e.g. --key file:owner.key]")
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
    _say(f"wrote {path} (fingerprint {name}); keep it secret and backed up: without it nothing can be proven")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@_option("--key", required=True, help=f"{_KEY_HELP}  [e.g. --key file:owner.key]")
@_option(
    "--model",
    "model_dir",
    help="Folder of the model to be marked, for its tokenizer.json; by default the demo model.  "
    "[e.g. --model ./my-model]",
)
@_option(
    "--scheme",
    default="gumbel",
    help="gumbel, tournament, green_list, or an installed plugin's.  [e.g. --scheme green_list]",
)
@_option(
    "--param",
    "params",
    multiple=True,
    help="A parameter of the scheme, NAME=VALUE; may be repeated.  [e.g. --param gamma=0.5 --param delta=2]",
)
@_option(
    "--width",
    type=int,
    default=2,
    help="Context width h. More than 2 leaves students untraceable.  [e.g. --width 2]",
)
@_option(
    "--subkeys",
    type=int,
    default=4,
    help="Pool of sub-keys, one drawn per request: diversity against detection power.  [e.g. --subkeys 8]",
)
@_option("--tenants", is_flag=True, help="Give half of the contexts to each account's own key.  [e.g. --tenants]")
@_option(
    "--global-share",
    type=float,
    help="Share of contexts for the global key (1: no tenants).  [e.g. --global-share 0.7]",
)
@_option("--epoch", type=int, default=0, help="Key rotation number.  [e.g. --epoch 3]")
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
    """Write a watermark spec, which holds no secret, to PATH.

    \b
    Example: dyetrace spec spec.json --key file:owner.key --model ./my-model --tenants
    """
    from watermark.keys import load_master
    from watermark.spec import WatermarkSpec, write_spec
    from watermark.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    tokenizer = load_tokenizer(_model_folder(model_dir))
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
        _say(f"warning: {made.warning}")
    write_spec(path, made)
    _say(f"wrote {path} ({made.spec_id})")


def _parameter(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not separator or number != number:
        raise DyetraceError(f"--param takes NAME=NUMBER (got {text!r}), such as gamma=0.25")
    return name, int(number) if number.is_integer() and "." not in value else number


@main.command()
@_option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The spec to commit to.  [e.g. --spec spec.json]",
)
@_option("--key", required=True, help=f"{_KEY_HELP}  [e.g. --key file:owner.key]")
@_option(
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
    from watermark.keys import load_master
    from watermark.spec import load_spec

    public, opening = make(load_spec(spec_path), load_master(key))
    beside = write_commitment(output, public, opening)
    _say(f"wrote {output} (publish it) and {beside} (keep it with the key): sha256 {public.sha256}")


@main.command("verify-commitment")
@click.argument("commitment", type=click.Path(path_type=Path))
@_option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The spec that was committed to.  [e.g. --spec spec.json]",
)
@_option("--key", required=True, help=f"{_KEY_HELP}  [e.g. --key file:owner.key]")
@_option(
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
    from watermark.keys import load_master
    from watermark.spec import load_spec

    public = load_commitment(commitment)
    verify(public, load_opening(opening or opening_path(commitment)), load_spec(spec_path), load_master(key))
    click.echo(f"commitment holds: spec {public.spec_id} and key {public.key_fingerprint}, dated {public.created}")


@main.command()
@_option(
    "--prompts",
    default="-",
    help="File with one prompt a line, or JSONL with a 'prompt' field; - is standard input.  "
    "[e.g. --prompts prompts.txt]",
)
@_option(
    "-o",
    "--output",
    default="-",
    help="JSONL with text and token ids; - is standard output.  [e.g. -o answers.jsonl]",
)
@_option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    help="The watermark; without it the text is not marked.  [e.g. --spec spec.json]",
)
@_option("--key", help=f"{_KEY_HELP}  [e.g. --key file:owner.key]")
@_option(
    "--tenant",
    help="The account that these answers are for, where the spec has tenants.  [e.g. --tenant acme]",
)
@_option("--model", "model_dir", help="A local model folder; by default the demo model.  [e.g. --model ./my-model]")
@_option(
    "--dtype",
    default="bfloat16",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Arithmetic of the model.  [e.g. --dtype float32]",
)
@_option("--max-new-tokens", type=int, default=200, help="Longest answer, in tokens.  [e.g. --max-new-tokens 400]")
@_option("--temperature", type=float, default=1.0, help="Sampling temperature.  [e.g. --temperature 0.7]")
@_option("--top-k", type=int, default=0, help="Keep the k likeliest tokens; 0 keeps all.  [e.g. --top-k 50]")
@_option("--top-p", type=float, default=1.0, help="Keep the likeliest tokens of this mass.  [e.g. --top-p 0.95]")
@_option("--samples", type=int, default=1, help="Answers per prompt.  [e.g. --samples 4]")
@_option(
    "--fresh-share",
    type=float,
    default=0.0,
    help="Share of positions left unmarked for diversity.  [e.g. --fresh-share 0.1]",
)
@_option("--batch", type=int, default=16, help="Prompts at a time.  [e.g. --batch 8]")
@_option("--seed", type=int, help="Seed of the unmarked randomness, to repeat a run.  [e.g. --seed 1]")
@_option("--limit", type=int, help="Only the first N prompts.  [e.g. --limit 10]")
@_option("--raw", is_flag=True, help="Do not use the model's chat template.  [e.g. --raw]")
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
    **sampling: Any,
) -> None:
    """Answer prompts with a local model, marked; JSONL out, one answer a line as soon as its batch is done.

    \b
    Example: echo "Why is the sky blue?" | dyetrace generate --spec spec.json --key file:owner.key
    """
    from watermark.generate import Sampling, generate_answers, read_prompts, write_answers
    from watermark.spec import load_spec

    settings = Sampling(**sampling)
    made = None if spec_path is None else load_spec(spec_path)
    ring = (
        None if made is None else _ring(_required(key, "--spec needs --key"), made, () if tenant is None else (tenant,))
    )
    texts = read_prompts(prompts)[:limit]
    model, tokenizer = _load_model(model_dir, dtype)
    answers = generate_answers(model, tokenizer, texts, settings, made, ring, tenant, chat=not raw)
    with _progress("answering", len(texts) * settings.samples) as advance:
        write_answers(output, answers, advance)


@main.command()
@click.argument("source", metavar="FILE|-")
@_option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark to look for.  [e.g. --spec spec.json]",
)
@_option(
    "--key",
    required=True,
    help=f"{_KEY_HELP} A tenant's own key serves as well.  [e.g. --key file:owner.key]",
)
@_option(
    "--tenant",
    "tenants",
    multiple=True,
    help="An account to test; may be repeated.  [e.g. --tenant acme --tenant zenith]",
)
@_option(
    "--tenants-file",
    type=click.Path(path_type=Path),
    help="Accounts to test, one a line.  [e.g. --tenants-file accounts.txt]",
)
@_option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default --model's, or the demo model's.  "
    "[e.g. --tokenizer ./my-model]",
)
@_option(
    "--format",
    "form",
    default="auto",
    type=click.Choice(["auto", "text", "jsonl"]),
    help="What FILE holds; auto goes by its name.  [e.g. --format jsonl]",
)
@_option("--text-field", default="text", help="JSONL field that holds the text.  [e.g. --text-field response]")
@_option(
    "--from-text",
    is_flag=True,
    help="Encode the text anew even where a record has token ids, as for a real suspect.  [e.g. --from-text]",
)
@_option(
    "--aware",
    is_flag=True,
    help="Test with the owner's model as well (--model; by default the demo model).  [e.g. --aware]",
)
@_option("--model", "model_dir", help="The owner's model folder, for --aware.  [e.g. --model ./my-model]")
@_option(
    "--alpha",
    type=float,
    default=1e-6,
    help="Family-wise false-positive rate of 'found', over all documents.  [e.g. --alpha 1e-3]",
)
@_option("--decoys", type=int, default=100, help="Decoy keys that the same test runs under.  [e.g. --decoys 1000]")
@_option("--decoy-seed", default="dyetrace", help="Public seed of the decoy keys.  [e.g. --decoy-seed 2026-11]")
@_option("--limit", type=int, help="Only the first N documents.  [e.g. --limit 100]")
@_option(
    "--commitment",
    "commitment_path",
    type=click.Path(path_type=Path),
    help="The published commitment, to put on record.  [e.g. --commitment commitment.json]",
)
@_option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for report.json and report.html.  [e.g. -o evidence/]",
)
@_option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the record as JSON alone on standard output.  [e.g. --json]",
)
@_option("--fail", is_flag=True, help=f"End with status {EXIT_FOUND} when the mark is found.  [e.g. --fail]")
def detect(
    source: str,
    spec_path: Path,
    key: str,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    tokenizer: str | None,
    form: Any,
    text_field: str,
    from_text: bool,
    aware: bool,
    model_dir: str | None,
    alpha: float,
    decoys: int,
    decoy_seed: str,
    limit: int | None,
    commitment_path: Path | None,
    output: Path | None,
    as_json: bool,
    fail: bool,
) -> None:
    """Test the documents of FILE (plain text, or JSONL with one document a line) for the mark.

    \b
    Example: dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key -o evidence/
             cat essay.txt | dyetrace detect - --spec spec.json --key file:owner.key --json --fail
    """
    from detect.detection import Model, Settings
    from detect.detection import detect as run
    from detect.inputs import from_text_alone, read_suspects
    from watermark.commitment import load_commitment
    from watermark.spec import load_spec

    settings = Settings(alpha=alpha, decoy_count=decoys, decoy_seed=decoy_seed)
    made = load_spec(spec_path)
    commitment = None if commitment_path is None else load_commitment(commitment_path)
    ring = _ring(key, made, (*tenants, *_names(tenants_file)))
    suspects, read = read_suspects(source, form, text_field)
    suspects = suspects[:limit]
    if from_text:
        suspects = [from_text_alone(suspect) for suspect in suspects]
    model = None
    tokenizer_source: Any = tokenizer or _model_folder(model_dir)
    if aware:
        network, _ = _load_model(model_dir, "bfloat16")
        model = Model(model_dir or "demo model SmolLM2-135M-Instruct", network)
    arguments = {
        "source": source,
        "tenants": list(ring.tenants),
        "format": form,
        "text_field": text_field,
        "from_text": from_text,
        "aware": aware,
        "model": model_dir,
        "tokenizer": tokenizer,
        "limit": limit,
    }
    with _progress("testing", len(suspects)) as advance:
        record = run(
            suspects,
            [read],
            made,
            ring,
            tokenizer_source,
            settings,
            model=model,
            commitment=commitment,
            arguments=arguments,
            progress=lambda done, of: advance(),
        )
    _publish(record, output, as_json)
    if fail and record.found:
        sys.exit(EXIT_FOUND)


@main.command()
@_option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("dyetrace-demo"),
    help="Folder for the demo's files.  [e.g. -o demo/]",
)
@_option(
    "--scheme",
    default="gumbel",
    type=click.Choice(["gumbel", "tournament", "green_list"]),
    help="The scheme to show.  [e.g. --scheme tournament]",
)
def demo(output: Path, scheme: str) -> None:
    """Mark a real model's answers, hide them among natural text, find them again; under 4 minutes on 2 cores.

    \b
    Example: dyetrace demo
    """
    from detect.demo import run_demo

    record = run_demo(output, scheme, _say)
    _publish(record, output, as_json=False)


@main.command()
@click.argument("report", type=click.Path(path_type=Path))
@_option("--key", required=True, help=f"{_KEY_HELP}  [e.g. --key file:owner.key]")
@_option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default the demo model's.  [e.g. --tokenizer ./my-model]",
)
@_option(
    "--inputs",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Folder that the report's input files are relative to.  [e.g. --inputs evidence/]",
)
def recompute(report: Path, key: str, tokenizer: str | None, inputs: Path) -> None:
    """Compute every blind test of REPORT (a report.json) anew and compare all numbers.

    \b
    Example: dyetrace recompute evidence/report.json --key file:owner.key
    """
    from detect.recompute import recompute as run
    from detect.report.schema import read_record

    record = read_record(report)
    ring = _ring(key, record.spec, tuple(record.arguments.get("tenants") or ()))  # type: ignore[arg-type]
    differences = run(record, ring, tokenizer or _model_folder(None), inputs)
    if differences:
        raise DyetraceError(f"the report does not hold: {'; '.join(differences[:5])}")
    click.echo(f"the report holds: {len(record.documents)} documents recomputed, every number the same")


def _publish(record: Any, output: Path | None, as_json: bool) -> None:
    from detect.report.schema import encode_record, write_record

    if output is not None:
        from detect.report.html import render_html
        from watermark.files import make_folder, write_atomically

        make_folder(output)
        write_record(output / "report.json", record)
        write_atomically(output / "report.html", render_html(record).encode())
        _say(f"wrote {output / 'report.json'} and {output / 'report.html'}")
    if as_json:
        click.echo(encode_record(record).decode(), nl=False)
        return
    from rich.console import Console

    from detect.report.terminal import print_record

    print_record(record, Console())


def _ring(source: str, made: WatermarkSpec, tenants: tuple[str, ...]) -> KeyRing:
    """The keys that this party holds: a master key gives any tenant's, a tenant's key gives its own."""
    from watermark.keys import KeyRing, TenantKey, load_key
    from watermark.spec import check_key

    key: SecretKey | TenantKey = load_key(source)
    if not isinstance(key, TenantKey):
        check_key(made, key.fingerprint)
        return KeyRing.from_master(key, made.epoch, tuple(dict.fromkeys(tenants)))
    check_key(made, key.master_fingerprint)
    if key.epoch != made.epoch:
        raise DyetraceError(f"the tenant key is of epoch {key.epoch}, but the spec is of epoch {made.epoch}")
    if any(name != key.tenant for name in tenants):
        raise DyetraceError(f"this key is of tenant {key.tenant!r} alone; other tenants need the master key")
    return key.ring()


def _names(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DyetraceError(f"cannot read tenants file {path}: {reason}") from None


def _required(value: str | None, message: str) -> str:
    if value is None:
        raise DyetraceError(message)
    return value


def _model_folder(model_dir: str | None) -> Any:
    if model_dir is not None:
        return model_dir
    from watermark.demo_model import demo_model_dir

    return demo_model_dir(_say)


def _load_model(model_dir: str | None, dtype: str) -> tuple[Any, Any]:
    from watermark.demo_model import load_model

    _say("loading the model")
    return load_model(model_dir, dtype, _say)


class _progress:
    """A progress bar on stderr, shown to people only; calling it moves it one step on."""

    def __init__(self, label: str, length: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(label, total=length)

    def __enter__(self) -> Callable[[], None]:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


if __name__ == "__main__":
    main()
