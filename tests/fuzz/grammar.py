"""What fuzzed commands are made of: lines that work, the options of each command, and what each option takes.

Options are read from the commands themselves, so that a new one is tried from the day on which it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import click

from detect.cli.main import main
from tests.fuzz.workshop import OTHER

KEY, MODEL, SPEC = "file:../mine/owner.key", "../mine/model", "../mine/spec.json"
OWN = f"--spec {SPEC} --key {KEY}"
TEXT = f"{OWN} --tokenizer {MODEL} --decoys 3"
URL = "@URL"  # of the endpoint that runs beside; what follows says how it behaves
SCAN = f"{TEXT} --null-corpus none --workers 1 -o new"
GENERATE = f"generate {OWN} --model {MODEL} --dtype float32 --max-new-tokens 6 --limit 2"
TRACE = f"trace weights ../mine/suspect {TEXT} --dtype float32 --contexts 60 -o new"
PLAN = f"trace plan {URL}/good --model suspect {OWN} --decoys 3 -o new.json"
RACE = f"--read ../mine/answers.jsonl --owner-model {MODEL} --dtype float32 --taken all"
ASK = f"--key {KEY} --tokenizer {MODEL} --timeout 0.5 --attempts 1"
TWINS = f"--twin-key {KEY}"
PORTS = "--port 0 --operator-port 0"
TWINNED = f"{GENERATE} --prompts ../mine/prompts.txt {TWINS}"
LATER = "--temperature 1 --top-p 1 --max-tokens 100 --dtype float32"
CHECK = f"serve-check {URL}/good --spec ../mine/tenants.json {ASK} --count 2 --max-tokens 8 --no-special"

LINES: dict[str, tuple[int, tuple[str, ...]]] = {
    "": (2, ("--help", "--version", "", "nonsense", "scan --help", "trace --help", "--nonsense")),
    "keygen": (4, ("keygen new.key", f"keygen new.key --tenant acme --key {KEY} --epoch 1")),
    "spec": (5, (f"spec new.json --key {KEY} --model {MODEL}",
                 f"spec new.json --key {KEY} --model {MODEL} --scheme green_list --param gamma=0.5 --tenants",
                 f"spec ../out/spec.json --key {KEY} --model {MODEL} --epoch 2 --force")),
    "spec import": (4, (f"spec import --format vllm-gumbel --from ../mine/vllm.json --model {MODEL} -o new.json "
                        "--key-out new.key",)),
    "commit": (4, (f"commit {OWN} -o new.json",)),
    "verify-commitment": (4, (f"verify-commitment ../mine/commitment.json {OWN}",)),
    "generate": (3, (f"{GENERATE} --prompts ../mine/prompts.txt -o new.jsonl",
                     f"{GENERATE} --prompts ../mine/prompts.jsonl",
                     f"{GENERATE} --prompts ../mine/prompts.txt -o ../out/answers.jsonl --force",
                     f"{GENERATE} --json -o new.jsonl",
                     f"{TWINNED} -o new.jsonl --twins 1 --twin-ledger new.ledger",
                     f"{TWINNED} --twins 0.5 --twin-ledger ../out/twins.ledger")),
    "detect": (8, (f"detect ../mine/answers.jsonl {TEXT}", f"detect ../mine/docs.jsonl {TEXT} --json --fail",
                   f"detect ../mine/text.txt {TEXT} -o new", f"detect - {TEXT}",
                   f"detect ../mine/ids.jsonl {TEXT} -o ../out/detection --force",
                   f"detect ../mine/acme.jsonl --spec ../mine/tenants.json --key {KEY} --tenant acme --tokenizer "
                   f"{MODEL} --decoys 3 --json",
                   f"detect ../mine/answers.jsonl {TEXT} --aware --model {MODEL} --limit 1")),
    "scan": (6, (f"scan ../mine/answers.jsonl {SCAN} --no-pdf", f"scan ../mine/docs.parquet {SCAN} --json --no-pdf",
                 f"scan ../mine/docs.jsonl.gz ../mine/docs.jsonl.zst {SCAN} --no-pdf --fail",
                 f"scan ../mine/ids.jsonl {SCAN} --work ../out/plain --keep-work --no-pdf",
                 f"scan ../mine/docs.jsonl {SCAN} --reference ../mine/answers.jsonl --sample 0.5",
                 f"scan ../mine/answers.jsonl {SCAN} -o ../out/scan --force --no-pdf",
                 f"scan ../mine/answers.jsonl {SCAN} --field text --field id --leave-out reasoning --dry-run",
                 f"scan ../mine/answers.jsonl {SCAN} --dry-run")),
    "plan": (3, (f"plan --spec {SPEC} --contexts 50 --json", f"plan --spec {SPEC} --contexts 50 --html new.html",
                 f"plan --spec {SPEC} --model {MODEL} --text ../mine/answers.jsonl --contexts 50")),
    "trace weights": (3, (f"{TRACE} --taken all --read ../mine/answers.jsonl --no-pdf",
                          f"{TRACE} --read ../mine/docs.jsonl --reference {MODEL} --json --no-pdf",
                          f"{TRACE} --taken all --read ../mine/answers.jsonl --complete ../mine/served.sha256 --no-pdf "
                          "--placebo ../mine/placebo.jsonl",
                          f"{TRACE} --taken all --read ../mine/answers.jsonl --no-pdf -o ../out/trace --force",
                          f"trace weights ../mine/suspect {TEXT} {RACE} --contexts 60 -o new --no-pdf",
                          f"trace weights ../mine/suspect {TEXT} {RACE} -o new --no-quotes --no-pdf --json")),
    "trace plan": (5, (f"{PLAN} --prompts ../mine/prompts.txt --timeout 0.5 --attempts 1",
                       f"{PLAN} --prompts ../mine/prompts.txt --timeout 0.5 --attempts 1 "
                       "--api-key file:../mine/api.key --api-key-header api-key",
                       f"{PLAN} --served ../mine/answers.jsonl --count 3 --no-probe --leave-out temperature "
                       "--limit-field max_completion_tokens",
                       f"{PLAN} --tokenizer {MODEL} {RACE} --timeout 0.5 --attempts 1",
                       f"{PLAN} --tokenizer {MODEL} {RACE} --timeout 0.5 --ask greedy --via completions --json")),
    "trace api": (3, (f"trace api ../mine/plan.json --spec {SPEC} {ASK} -o new --no-pdf",
                      f"trace api ../mine/plan.json --spec {SPEC} {ASK} -o new --dry-run",
                      f"trace api ../mine/race.json --spec {SPEC} {ASK} --read ../mine/answers.jsonl -o new --no-pdf",
                      f"trace api ../mine/race.json --spec {SPEC} {ASK} --read ../mine/answers.jsonl -o new --dry-run "
                      "--json")),
    "trace twins": (2, (f"trace twins ../mine/suspect --ledger ../mine/twins.ledger {TWINS} --dtype float32 -o new "
                        "--no-pdf",
                        f"trace twins ../mine/suspect --ledger ../mine/twins.ledger {TWINS} -o new --dry-run --json")),
    "recompute": (6, (f"recompute ../mine/detection/report.json --key {KEY} --tokenizer {MODEL}",
                      f"recompute ../mine/scan/report.json --key {KEY} --tokenizer {MODEL} --inputs ../mine",
                      f"recompute ../mine/trace/report.json --key {KEY}",
                      f"recompute ../odd/scan/report.json --key {KEY} --tokenizer {MODEL} --inputs ../mine")),
    "report verify": (6, ("report verify ../mine/signed/report.json --inputs ../mine "
                          "--public-key ../mine/signing.pem.pub",
                          "report verify ../mine/trace/report.json --json", "report verify ../odd/trace/report.json",
                          "report verify ../mine/detection/report.json")),
    "report render": (4, ("report render ../mine/scan/report.json -o new --format html --format text",
                          "report render ../mine/trace/report.json -o ../out/trace --force",
                          "report render ../mine/detection/report.json -o new --format text")),
    "report sign": (3, ("report sign ../out/scan/report.json --signing-key file:../mine/signing.pem",)),
    "report keygen": (2, ("report keygen new.pem",)),
    "ledger info": (2, ("ledger info ../mine/one.ledger --json",)),
    "ledger hashes": (3, ("ledger hashes ../mine/answers.jsonl",)),
    "ledger merge": (2, ("ledger merge ../mine/one.ledger ../mine/two.ledger -o new.ledger",)),
    "twins info": (2, (f"twins info ../mine/twins.ledger {TWINS} --json", "twins info ../mine/twins.ledger")),
    "twins commit": (3, (f"twins commit ../mine/twins.ledger {TWINS} -o new.json",)),
    "twins reveal": (3, (f"twins reveal ../mine/twins.ledger {2:032x} {TWINS} --commitment ../mine/twins.json -o new",
                         f"twins reveal ../out/twins.ledger {3:032x} {4:032x} {TWINS} -o new.json --json")),
    "twins verify": (3, ("twins verify ../mine/shown.json --commitment ../mine/twins.json",
                         "twins verify ../mine/shown.json --commitment ../mine/twins.json --json "
                         "--opening ../mine/twins.json.opening")),
    "twins export": (3, (f"twins export ../mine/twins.ledger {TWINS} -o new.jsonl --account acme",)),
    "twins regenerate": (2, (f"twins regenerate ../mine/answers.jsonl --model {MODEL} --twin-ledger new.ledger {TWINS} "
                             f"{LATER} {OWN}",)),
    "twins erase": (4, (f"twins erase ../out/twins.ledger {TWINS} --account acme --yes --json",
                        f"twins erase ../out/twins.ledger {TWINS} --before 2027-01-01 --yes")),
    "serve-check": (3, (CHECK, f"{CHECK} --tenant acme --json", f"{CHECK} --tenant acme --every 0.1 --rounds 2")),
    "gateway": (3, (f"gateway --upstream {URL}/good {TWINS} --twin-ledger new.ledger {PORTS} --two-requests --check",
                    f"gateway --upstream {URL}/good {TWINS} --twin-ledger ../out/twins.ledger {PORTS} --two-requests "
                    "--budget 1000 --at-once 2 --check")),
    "schema": (2, ("schema", "schema scan")),
    "demo": (1, ("demo -o new",)),
}  # fmt: skip
"""For each command how often it is tried, and lines of it that work."""

LOADS_MODELS = ("generate", "plan", "trace weights", "trace api", "trace twins", "twins regenerate", "demo")
"""Commands that are forked from a process which has loaded torch."""

TAKES_SECONDS = ("demo", "plan")
"""Commands that are cut off in most runs."""

SLOW_WORDS = ("ray", "datatrove")
"""Engines of others take minutes to start; they have tests of their own."""

VALUES = (
    "", " ", "-", "--", "0", "1", "-1", "2", "0.5", "1e-3", "1e400", "1e20", "nan", "inf", "-inf", "1_0", "0x10", "٣",
    "1,5", str(2**31), str(2**32), str(2**63), str(2**64), "1" + "0" * 30, "9" * 5000, "x" * 300, "é", "\u202e",
    "\udcff", "\ud800", "a\0b", "a\nb", "[red]", "%s", "{}", "NAME=VALUE", "=", "a=", "gamma=nan", "gamma=2",
    "../mine/model=0.1", "None", "true", "auto", "acme", "zenith", "acme,zenith", "*", "..", ".", "*.jsonl", "[",
    "~", "~nobody/x", "$HOME", "--help", "--json", "--nonsense", "-o",
)  # fmt: skip
"""Odd values, for any option."""

KEYS = (
    KEY, "file:../mine/other.key", "file:../mine/acme.key", "file:../mine/foreign.key", "file:../odd/open.key",
    "env:FUZZ_KEY", "env:NOPE", "env:", "file:", "cmd:", "cmd:cat ../mine/owner.key", "cmd:false", "cmd:echo short",
    "cmd:no-such-command", "cmd:cat ../odd/not-utf8.txt", "cmd:echo -n; exit 3", "file:../odd/cut-owner.key",
    "file:../odd/flipped-owner.key", "file:../odd/zeros", "file:../odd/folder", "file:../odd/to-key",
    "file:../odd/loop", "file:../odd/not-utf8.txt", "file:../mine/signing.pem", "file:../mine/spec.json",
    "file:../odd/cut-signing.pem", OTHER.hex(), f"file:{'x' * 300}", "env:A=B", "file:/dev/null", "file:nope",
)  # fmt: skip

OUTPUTS = (
    "new", "deep/er/new", "../out/next", "../out/notes.txt", "../out/spec.json", "../out/answers.jsonl",
    "../out/owner.key", "../out/commitment.json.opening", "../out/one.ledger", "../out/plan.json", "../out/scan",
    "../out/trace", "../out/detection", "../out/signed", "../out/busy", "../out/plain", "../out/work", "../out",
    "../mine", "../mine/owner.key", "../mine/answers.jsonl", "../mine/commitment.json.opening", "../mine/one.ledger",
    "../mine/scan", "../mine/detection", "../mine/trace", "../odd/to-key", "../odd/dangling", "../odd/loop",
    "../odd/to-null", "../odd/pipe", "../odd/folder", "/dev/null", "/dev/full", "/dev/stdout", "/proc/nope/new", ".",
    "", "-",
)  # fmt: skip

ADDRESSES = (
    *(f"{URL}/{way}" for way in ("good", "bad-json", "status-500", "status-404", "status-401", "status-429", "empty",
                                 "html", "not-utf8", "wrong-shape", "drop", "long", "redirect", "nulls")),
    "http://127.0.0.1:9/v1", "nonsense", "http://", "http://[::1", "ftp://127.0.0.1/v1", "file:///etc/hostname",
    "127.0.0.1:9", "http://127.0.0.1:99999/v1", "http://user:secret@127.0.0.1:9/v1", "https://127.0.0.1:9/v1", "",
)  # fmt: skip


ANSWERS = (
    "../mine/answers.jsonl",
    "../mine/acme.jsonl",
    "../mine/placebo.jsonl",
    "../mine/one.ledger",
    "../mine/docs.jsonl",
)
_PARTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors")
MODELS = (
    *(MODEL, "../mine/suspect", "../mine/model/tokenizer.json"),
    *(f"../odd/model-{kind}-{name}" for kind in ("deep", "wrong") for name in _PARTS),
)
FITTING = {
    "--spec": (SPEC, "../mine/tenants.json", "../mine/green.json", "../mine/foreign.json"),
    "--model": MODELS,
    "--tokenizer": MODELS,
    "--served": ANSWERS,
    "--read": ANSWERS,
    "--text": ANSWERS,
    "--placebo": ANSWERS,
    "--reference": (*MODELS, *ANSWERS),
    "--null-corpus": ("none", "natural", *ANSWERS),
    "--control": (*MODELS, "acme", "zenith"),
    "--base": MODELS,
    "--calibrate": ("../mine/suspect=0.1", "../mine/model=0", "../mine/model=nan"),
    "--owner-model": MODELS,
    "--complete": ("../mine/served.sha256", "../mine/one.ledger"),
    "--tenants-file": ("../mine/accounts.txt", "../mine/prompts.txt"),
    "--commitment": ("../mine/commitment.json", "../mine/commitment.json.opening", "../mine/twins.json"),
    "--opening": ("../mine/commitment.json.opening", "../mine/commitment.json", "../mine/twins.json.opening"),
    "--twin-ledger": ("../out/twins.ledger", "../mine/one.ledger", "../odd/flipped-twins.ledger", "new.ledger", "new"),
    "--prompts": ("../mine/prompts.txt", "../mine/prompts.jsonl", "../mine/answers.jsonl", "-"),
    "--inputs": ("../mine", "../out", "/"),
    "--field": ("text", "id", "messages", "token_ids", "choices.*.message", "choices.0.text", "*", ".", ""),
    "--public-key": ("../mine/signing.pem.pub", "../mine/signing.pem"),
    "--from": ("../mine/vllm.json",),
    "--format": ("vllm-gumbel", "sglang", "transformers-synthid", "transformers-kgw", "markllm"),
}
"""What options of those names are for; others take any file."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command: its longest name, and what kind of value it takes."""

    name: str
    kind: str
    choices: tuple[str, ...] = ()


def commands(group: click.Group = main, above: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands with their whole names, without "dyetrace"."""
    for name, command in group.commands.items():
        names = (*above, name)
        if isinstance(command, click.Group):
            yield from commands(command, names)
        else:
            yield " ".join(names), command
    if group is main:
        yield "spec import", cast(Any, main.commands["spec"]).instead["import"]


@lru_cache(maxsize=1)
def options() -> dict[str, tuple[Option, ...]]:
    """The options of each command."""
    return {name: tuple(_options(command)) for name, command in commands()} | {"": (Option("--help", "flag"),)}


@lru_cache(maxsize=1)
def names_of_options() -> dict[str, frozenset[str]]:
    """All names of each command's options, as messages may name them."""
    found = {}
    for name, command in commands():
        names = [opt for parameter in command.params for opt in (*parameter.opts, *parameter.secondary_opts)]
        found[name] = frozenset([*names, "--help", "-h"])
    return found | {"": frozenset(["--help", "-h", "--version"])}


def _options(command: click.Command) -> Iterator[Option]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in (max(parameter.opts, key=len), *parameter.secondary_opts):
                choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
                yield Option(name, _kind(parameter), tuple(str(choice) for choice in choices))


def _kind(parameter: click.Option) -> str:
    name = max(parameter.opts, key=len)
    if parameter.is_flag:
        return "flag"
    if isinstance(parameter.type, click.Choice):
        return "choice"
    if name in ("--key", "--signing-key", "--api-key", "--twin-key"):
        return "key"
    if name in ("--output", "--work", "--html", "--key-out"):
        return "output"
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return "number"
    return "file" if name not in _WORDS else "word"


_WORDS = (
    "--tenant", "--control", "--argument", "--field", "--text-field", "--id-field", "--role", "--seed", "--decoy-seed",
    "--param", "--scheme", "--served-tenant", "--read-tenant", "--address", "--case", "--examiner",
    "--account", "--before", "--api-key-header",
)  # fmt: skip
