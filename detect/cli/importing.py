"""`dyetrace spec import`: another system's configuration becomes a spec and a key file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from detect.cli.common import force_option, model_folder, option, say
from detect.cli.results import json_option, print_result
from watermark.errors import DyetraceError
from watermark.interruption import held


@click.command("import")
@option(
    "--format",
    "form",
    required=True,
    help="The mark's format, such as vllm-gumbel, sglang or transformers-synthid.  [e.g. --format vllm-gumbel]",
)
@option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="The system's own configuration with the key in it (vLLM's --watermark-config, a generation_config.json, "
    "SGLang's --watermark-config), or a file with the key alone.  [e.g. --from watermark-config.json]",
)
@option(
    "--model",
    "model_dir",
    help="Folder of the model that is marked, for its tokenizer.json and vocabulary; by default the demo model.  "
    "[e.g. --model ./my-model]",
)
@option(
    "--param",
    "params",
    multiple=True,
    help="A parameter of the format that the file doesn't hold, NAME=VALUE; may be repeated.  "
    "[e.g. --param context_width=3]",
)
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the spec goes; there is no secret in it.  [e.g. -o spec.json]",
)
@option(
    "--key-out",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the key goes, readable by you alone.  [e.g. --key-out foreign.key]",
)
@force_option("spec")
@json_option
def import_spec(
    form: str,
    source: Path,
    model_dir: str | None,
    params: tuple[str, ...],
    output: Path,
    key_out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Write the spec and the key file of a mark that another system writes, from that system's own configuration, and
    print the spec's id.

    \b
    Example: dyetrace spec import --format vllm-gumbel --from watermark-config.json \\
                 --model ./my-model -o spec.json --key-out foreign.key
    """
    from os.path import realpath  # which takes links in a circle as they are

    from detect.keyed.calibration import explanation
    from detect.records.results import SpecImported
    from watermark.files.writing import check_output
    from watermark.formats.passport import read_passport
    from watermark.keys import write_key_file
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
    from watermark.schemes.protocol import parameters
    from watermark.spec import WatermarkSpec, is_spec, write_spec

    check_output(key_out, inputs=[source])
    check_output(output, inputs=[source], kind="a watermark spec", is_kind=is_spec, force=force)
    if realpath(output) == realpath(key_out):
        raise DyetraceError(f"-o and --key-out are both {output}; give the key a path of its own")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read {source}: {error.strerror}; give the system's configuration file") from None
    folder = model_folder(model_dir)
    tokenizer = load_tokenizer(folder)
    size = vocabulary_size(tokenizer)
    given = named_parameters(params, _value)
    scheme, key = read_passport(form, data, str(source), given, _output_size(Path(folder), size))
    made = WatermarkSpec(
        scheme=form,
        parameters=parameters(scheme),
        context_width=scheme.context_width,
        subkeys=1,
        vocabulary_size=size,
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
    )
    if made.warning:
        say(f"warning: {made.warning}")
    note = explanation(scheme)
    if note:
        say(f"note: {note}")
    with held():
        write_key_file(key_out, key)
        try:
            write_spec(output, made, replace=force)
        except BaseException:
            key_out.unlink()  # the key is in the configuration still, and the next try needs the path
            raise
    say(f"wrote {output} ({made.spec_id}) and {key_out}; keep the key secret and backed up")
    if not as_json:
        click.echo(made.spec_id)
        return
    print_result(
        SpecImported(
            path=str(output),
            key_path=str(key_out),
            spec_id=made.spec_id,
            scheme=made.scheme,
            key_fingerprint=made.key_fingerprint,
            warnings=[made.warning] if made.warning else [],
            p_values=note,
        )
    )


def _output_size(folder: Path, tokenizer: int) -> int:
    """How many logits the model has, which may be more than the tokenizer has tokens."""
    import msgspec

    try:
        config: Any = msgspec.json.decode((folder / "config.json").read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError):
        return tokenizer
    for part in (config, config.get("text_config")) if isinstance(config, dict) else ():
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int):
            return max(tokenizer, size)
    return tokenizer


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


def _value(_: str, value: str) -> Any:
    """A value as JSON has it, else as text."""
    import msgspec

    try:
        return msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, RecursionError):
        return value
