"""`dyetrace spec import`: another system's configuration becomes a spec and a key file."""

from __future__ import annotations

from os.path import realpath  # which takes links in a circle as they are
from pathlib import Path
from typing import Any

import msgspec

from detect.cli.marking import described_spec, named_parameters
from detect.cli.models import model_folder
from detect.cli.options.marking import ImportSpec
from detect.cli.results import print_either
from detect.cli.working import say
from detect.keyed.calibration import explanation
from detect.records.results import SpecImported
from watermark.errors import DyetraceError
from watermark.files.writing import check_output
from watermark.formats.passport import read_passport
from watermark.interruption import held
from watermark.keys import write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.schemes.protocol import parameters
from watermark.spec import WatermarkSpec, is_spec, write_spec


def import_spec(asked: ImportSpec) -> None:
    """Read a configuration, write spec and key."""
    source, output, key_out = asked.source, asked.output, asked.key_out
    check_output(key_out, inputs=[source])
    check_output(output, inputs=[source], kind="a watermark spec", is_kind=is_spec, force=asked.force)
    if realpath(output) == realpath(key_out):
        raise DyetraceError(f"-o and --key-out are both {output}; give the key a path of its own")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read {source}: {error.strerror}; give the system's configuration file") from None
    folder = model_folder(asked.model)
    tokenizer = load_tokenizer(folder)
    size = vocabulary_size(tokenizer)
    given = named_parameters(asked.params, _value)
    scheme, key = read_passport(asked.form, data, str(source), given, _output_size(Path(folder), size))
    made = WatermarkSpec(
        scheme=asked.form,
        parameters=parameters(scheme),
        context_width=scheme.context_width,
        subkeys=1,
        vocabulary_size=size,
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=key.fingerprint,
    )
    described = described_spec(made, output)
    note = explanation(scheme)
    if note:
        say(f"note: {note}")
    with held():
        write_key_file(key_out, key)
        try:
            write_spec(output, made, replace=asked.force)
        except BaseException:
            key_out.unlink()  # the key is in the configuration still, and the next try needs the path
            raise
    say(f"wrote {output} ({made.spec_id}) and {key_out}; keep the key secret and backed up")
    result = SpecImported(**described, key_path=str(key_out), p_values=note)
    print_either(made.spec_id, result, asked.as_json)


def _output_size(folder: Path, tokenizer: int) -> int:
    """How many logits the model has, which may be more than the tokenizer has tokens."""
    try:
        config: Any = msgspec.json.decode((folder / "config.json").read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError):
        return tokenizer
    for part in (config, config.get("text_config")) if isinstance(config, dict) else ():
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int):
            return max(tokenizer, size)
    return tokenizer


def _value(_: str, value: str) -> Any:
    """A value as JSON has it, else as text."""
    try:
        return msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, RecursionError):
        return value
