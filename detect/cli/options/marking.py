"""The options of the commands of whoever marks text: keys, specs, commitments, marked answers."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import (
    KEY_HELP,
    Keyed,
    Printed,
    Working,
    dtype_option,
    force_option,
    spec_option,
)


class Keygen(Printed, runs="marking:keygen"):
    """Write a new secret key to PATH, readable by you alone, and print the master key's fingerprint.

    \b
    Example: dyetrace keygen owner.key
             dyetrace keygen acme.key --tenant acme --key file:owner.key
    """

    path: Path = argument()
    tenant: str | None = option(
        "--tenant", help="Write the key of this account alone, for an outside expert.  [e.g. --tenant acme]"
    )
    epoch: int | None = option(
        "--epoch",
        type=click.IntRange(0),
        help="With --tenant: of which rotation epoch; 0 by default.  [e.g. --epoch 3]",
    )
    key: str | None = option("--key", help=f"With --tenant: the master key. {KEY_HELP}  [e.g. --key file:owner.key]")


class ImportSpec(Printed, runs="importing:import_spec"):
    """Write the spec and the key file of a mark that another system writes, from that system's own configuration, and
    print the spec's id.

    \b
    Example: dyetrace spec import --format vllm-gumbel --from watermark-config.json \\
                 --model ./my-model -o spec.json --key-out foreign.key
    """

    form: str = option(
        "--format",
        help="The mark's format, such as vllm-gumbel, sglang or transformers-synthid.  [e.g. --format vllm-gumbel]",
    )
    source: Path = option(
        "--from",
        help="The system's own configuration with the key in it (vLLM's --watermark-config, a generation_config.json, "
        "SGLang's --watermark-config), or a file with the key alone.  [e.g. --from watermark-config.json]",
    )
    model: str | None = option(
        "--model",
        help="Folder of the model that is marked, for its tokenizer.json and vocabulary; by default the demo model.  "
        "[e.g. --model ./my-model]",
    )
    params: tuple[str, ...] = option(
        "--param",
        help="A parameter of the format that the file doesn't hold, NAME=VALUE; may be repeated.  "
        "[e.g. --param context_width=3]",
    )
    output: Path = option("-o", "--output", help="Where the spec goes; there is no secret in it.  [e.g. -o spec.json]")
    key_out: Path = option("--key-out", help="Where the key goes, readable by you alone.  [e.g. --key-out foreign.key]")
    force: bool = force_option("spec")


class Spec(Keyed, Printed, runs="marking:spec", instead={"import": ImportSpec}):
    """Write a watermark spec, which holds no secret, to PATH, and print its id; `dyetrace spec import` reads another
    system's mark.

    \b
    Example: dyetrace spec spec.json --key file:owner.key --model ./my-model --tenants
             dyetrace spec import --help
    """

    path: Path = argument()
    model: str | None = option(
        "--model",
        help="Folder of the model to be marked, for its tokenizer.json; by default the demo model.  "
        "[e.g. --model ./my-model]",
    )
    scheme: str = option(
        "--scheme",
        default="gumbel",
        help="gumbel, tournament, green_list, or an installed plugin's.  [e.g. --scheme green_list]",
    )
    params: tuple[str, ...] = option(
        "--param",
        help="A parameter of the scheme, NAME=VALUE; may be repeated.  [e.g. --param gamma=0.5 --param delta=2]",
    )
    width: int = option(
        "--width",
        default=2,
        help="Context width h. With more than 2 a student shows the mark in served answers alone.  [e.g. --width 2]",
    )
    subkeys: int = option(
        "--subkeys",
        default=4,
        help="Pool of sub-keys, one drawn per request: diversity against detection power.  [e.g. --subkeys 8]",
    )
    tenants: bool = option("--tenants", help="Give half of the contexts to each account's own key.  [e.g. --tenants]")
    global_share: float | None = option(
        "--global-share", help="Share of contexts for the global key (1: no tenants).  [e.g. --global-share 0.7]"
    )
    epoch: int = option("--epoch", default=0, help="Key rotation number.  [e.g. --epoch 3]")
    force: bool = force_option("spec")


class Commit(Keyed, Printed, runs="marking:commit"):
    """Commit to spec and key: publish the output now, keep the opening with the key. Prints the commitment's SHA-256.

    \b
    Example: dyetrace commit --spec spec.json --key file:owner.key -o commitment.json
    """

    spec_path: Path = spec_option("The spec to commit to.")
    output: Path = option(
        "-o",
        "--output",
        help="Where the public commitment goes; the opening goes beside it as NAME.opening.  [e.g. -o commitment.json]",
    )


class VerifyCommitment(Keyed, Printed, runs="marking:verify_commitment"):
    """Check that COMMITMENT was made of this spec and this key. When it was made it can't show: that is shown by where
    and when its SHA-256 was published.

    \b
    Example: dyetrace verify-commitment commitment.json --spec spec.json --key file:owner.key
    """

    commitment: Path = argument()
    spec_path: Path = spec_option("The spec that was committed to.")
    opening: Path | None = option(
        "--opening", help="The opening; by default COMMITMENT.opening.  [e.g. --opening commitment.json.opening]"
    )


class Generate(Printed, Working, runs="generating:generate"):
    """Answer prompts with a local model, marked; JSONL out, one answer a line as soon as its batch is done.

    With -o FILE, answers go to FILE.partial, which becomes FILE when all are there, and standard output has FILE's
    SHA-256 in the end. After an interrupt, a crash or a full disk the same command goes on from there: whole batches
    stay, and a batch that was lost is made again as it was, since all that is drawn comes from random bytes that
    FILE.partial.json keeps.

    \b
    Example: echo "Why is the sky blue?" | dyetrace generate --spec spec.json --key file:owner.key
             dyetrace generate --prompts prompts.txt --spec spec.json --key file:owner.key -o answers.jsonl
             dyetrace generate --prompts prompts.txt --twins 0.02 --twin-ledger twins.ledger --twin-key file:twins.key
    """

    prompts: str = option(
        "--prompts",
        default="-",
        help="File with one prompt a line, or records (JSONL, JSON, CSV, ...) with a 'prompt' field; - is standard "
        "input.  [e.g. --prompts prompts.txt]",
    )
    output: str = option(
        "-o",
        "--output",
        default="-",
        help="JSONL with text and token ids; - is standard output. A file that isn't whole yet is FILE.partial.  "
        "[e.g. -o answers.jsonl]",
    )
    spec_path: Path | None = option(
        "--spec", help="The watermark; without it the text is not marked.  [e.g. --spec spec.json]"
    )
    key: str | None = option("--key", help=f"{KEY_HELP}  [e.g. --key file:owner.key]")
    tenant: str | None = option(
        "--tenant",
        help="The account that the answers are for, where the spec has tenants or with --twins.  [e.g. --tenant acme]",
    )
    model: str | None = option(
        "--model", help="A local model folder; by default the demo model.  [e.g. --model ./my-model]"
    )
    dtype: str = dtype_option("Arithmetic of the model.")
    max_new_tokens: int = option(
        "--max-new-tokens", default=200, help="Longest answer, in tokens.  [e.g. --max-new-tokens 400]"
    )
    temperature: float = option("--temperature", default=1.0, help="Sampling temperature.  [e.g. --temperature 0.7]")
    top_k: int = option("--top-k", default=0, help="Keep the k likeliest tokens; 0 keeps all.  [e.g. --top-k 50]")
    top_p: float = option("--top-p", default=1.0, help="Keep the likeliest tokens of this mass.  [e.g. --top-p 0.95]")
    samples: int = option("--samples", default=1, help="Answers per prompt.  [e.g. --samples 4]")
    fresh_share: float = option(
        "--fresh-share", default=0.0, help="Share of positions left unmarked for diversity.  [e.g. --fresh-share 0.1]"
    )
    batch: int = option("--batch", default=16, help="Prompts at a time.  [e.g. --batch 8]")
    seed: int | None = option(
        "--seed", help="Seed of the unmarked randomness; sub-keys are drawn anew for each output.  [e.g. --seed 1]"
    )
    limit: int | None = option("--limit", help="Only the first N prompts.  [e.g. --limit 10]")
    raw: bool = option("--raw", help="Do not use the model's chat template.  [e.g. --raw]")
    placebo: bool = option(
        "--placebo",
        help="Mark with the placebo key, which is derived from yours: answers to keep, and never to serve to anybody. "
        "A trace runs on them as on real ones (--placebo there) and must find nothing.  [e.g. --placebo]",
    )
    twins: float | None = option(
        "--twins",
        help="Share of the answers of which two are drawn: a secret coin says which one is written, and the other, its "
        "twin, is kept in the ledger and never served to anybody.  [e.g. --twins 0.02]",
    )
    twin_ledger: Path | None = option(
        "--twin-ledger",
        help="With --twins: the private ledger that pairs go to before an answer is written; a new file or an earlier "
        "ledger of the same key.  [e.g. --twin-ledger twins.ledger]",
    )
    twin_key: str | None = option(
        "--twin-key",
        help="With --twins: the key that coins are tossed and pairs encrypted under, made by `dyetrace keygen`; take "
        f"another than the watermark's. {KEY_HELP}  [e.g. --twin-key file:twins.key]",
    )
    force: bool = force_option("file of answers")
