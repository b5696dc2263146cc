"""Every option of the commands that judge suspects: where it can't have an effect it is refused, in one line.

An option that is in the table is refused in that situation; one that is in no row has an effect wherever it may stand.
`--dry-run` describes the run that the other options are for, so it leaves them be; but for `--fail`, whose status 0
says that no mark was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.records.reading import encode_record
from detect.student.asking.budget import Budgets
from detect.student.asking.plan import write_plan
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from tests.detect.student.asking.planned import plan as make_plan
from tests.detect.student.verdict.test_recompute import traced
from watermark.keys import KeyRing, write_key_file
from watermark.ledger import Ledger
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import write_spec


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_key_file(folder / "owner.key", SECRET)
    write_spec(folder / "spec.json", spec())
    write_jsonl(folder / "ids.jsonl", documents(4, 60, 1))
    (folder / "plain.txt").write_text("A text of a few words, without any mark.\n" * 5)
    (folder / "prose.jsonl").write_text('{"text": "A text of a few words, without any mark."}\n' * 5)
    (folder / "prompts.txt").write_text("Say something.\nSay something else.\n")
    (folder / "nobody.txt").write_text("\n")
    write_plan(folder / "plan.json", msgspec.structs.replace(make_plan(), budgets=Budgets(requests=10, tokens=1000)))
    (folder / "trace").mkdir()
    (folder / "trace" / "report.json").write_bytes(encode_record(traced(folder / "trace")))
    Ledger.create(folder / "served.ledger", spec(), KeyRing.from_master(SECRET, 0)).close()
    return folder


@dataclass(frozen=True)
class Case:
    """A command's arguments; those that name a file of the folder begin with an at sign."""

    command: str
    arguments: str
    option: str
    says: str = "has no effect"


KEY = "--spec @spec.json --key file:@owner.key"
WEIGHTS, PLAN = f"@model --read @ids.jsonl {KEY} -o @out", f"http://x --model m {KEY} -o @p.json"
OF_OWNERS = ("--owner-temperature 0.8", "--owner-top-p 0.9", "--owner-top-k 50", "--owner-min-p 0.1", "--device cpu")
OF_RACE_PLANS = (
    *("--read @ids.jsonl", "--ask greedy", "--via prefill", "--per-answer 3", "--dtype float32", "--taken all"),
    *("--read-tenant acme", "--complete @served.ledger"),
)
OF_OTHER_WEIGHTS = (
    *("--control @m", "--calibrate @m=0.1", "--served @ids.jsonl", "--served-tenant acme"),
    *("--placebo @ids.jsonl", "--readout mass", "--two-sided"),
)
OF_OTHER_PLANS = (
    *("--prompts @prompts.txt", "--count 3", "--seed x", "--samples 2", "--per-request 1", "--endpoint chat"),
    *("--logprobs 5", "--temperature 0.5", "--max-tokens 9", "--served @ids.jsonl", "--served-tenant acme"),
    "--no-probe",
)


def each(command: str, arguments: str, options: tuple[str, ...], says: str) -> list[Case]:
    """A case for each option, which is given with its value."""
    return [Case(command, f"{arguments} {option}", option.split()[0], says) for option in options]


TABLE = [
    # detect
    Case("detect", f"@plain.txt {KEY} --text-field reply", "--text-field"),
    Case("detect", f"@plain.txt {KEY} --text-field text", "--text-field"),
    Case("detect", f"@prose.jsonl {KEY} --format text --text-field text", "--text-field"),
    Case("detect", f"@ids.jsonl {KEY} --text-field reply", "--text-field", "in field 'reply'"),
    Case("detect", f"@plain.txt {KEY} --from-text", "--from-text"),
    Case("detect", f"@plain.txt {KEY} --limit 1", "--limit"),
    Case("detect", f"@ids.jsonl {KEY} --model ./model", "--model"),
    Case("detect", f"@ids.jsonl {KEY} --decoys 0 --decoy-seed x", "--decoy-seed"),
    Case("detect", f"@ids.jsonl {KEY} --force", "--force"),
    Case("detect", f"@ids.jsonl {KEY} --pdf", "--pdf"),
    Case("detect", f"@ids.jsonl {KEY} --no-pdf", "--no-pdf"),
    Case("detect", f"@ids.jsonl {KEY} --tenant acme", "--tenant", "no accounts"),
    Case("detect", f"@ids.jsonl {KEY} --tenants-file @nobody.txt", "--tenants-file", "names no account"),
    # scan
    Case("scan", f"@plain.txt {KEY} -o @out --field text", "--field"),
    Case("scan", f"@plain.txt {KEY} -o @out --id-field uuid", "--id-field"),
    Case("scan", f"@plain.txt {KEY} -o @out --limit 3", "--limit"),
    Case("scan", f"@plain.txt {KEY} -o @out --role user", "--role"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --role user", "--role"),
    Case("scan", f"@prose.jsonl {KEY} -o @out --role user", "--role"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --decoys 0 --decoy-seed x", "--decoy-seed"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --address auto", "--address"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --engine datatrove --address auto", "--address"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --null-corpus none --null-corpus @prose.jsonl", "--null-corpus"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --null-corpus natural", "--null-corpus"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --tenant acme", "--tenant", "no accounts"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --tenants-file @nobody.txt", "--tenants-file", "names no account"),
    Case("scan", f"@ids.jsonl {KEY} -o @out --dry-run --fail", "--fail", "looks for no mark"),
    # trace weights
    Case("trace weights", f"@model --read @plain.txt {KEY} -o @out --decoys 0 --decoy-seed x", "--decoy-seed"),
    Case(
        "trace weights", f"@model --read @plain.txt {KEY} -o @out --served-tenant acme", "--served-tenant", "--served"
    ),
    Case("trace weights", f"@model --read @plain.txt {KEY} -o @out --tenant acme", "--tenant", "no accounts"),
    Case("trace weights", f"@model --read @plain.txt {KEY} -o @out --tenants-file @nobody.txt", "--tenants-file", ""),
    # trace plan
    Case("trace plan", f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --reference @m", "--reference", ""),
    Case("trace plan", f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --per-request 9", "--per-request"),
    Case(
        "trace plan",
        f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --served-tenant a",
        "--served-tenant",
        "give --served",
    ),
    Case("trace plan", f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --tenant a", "--tenant", "no acc"),
    Case(
        "trace plan",
        f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --tenants-file @nobody.txt",
        "--tenants-file",
        "names no account",
    ),
    Case(
        "trace plan",
        f"http://x --model m --prompts @prompts.txt {KEY} -o @p.json --decoys 0 --decoy-seed x",
        "--decoy-seed",
    ),
    *each(
        "trace plan",
        f"{PLAN} --prompts @prompts.txt --no-probe",
        ("--api-key env:X", "--api-key-header api-key", "--timeout 3", "--attempts 2"),
        "asks the endpoint nothing",
    ),
    Case("trace plan", f"{PLAN} --prompts @prompts.txt --api-key-header api-key", "--api-key-header", "give --api-key"),
    Case("trace plan", f"{PLAN} --prompts @prompts.txt --leave-out temperature --temperature 1", "--temperature"),
    Case(
        "trace plan", f"{PLAN} --prompts @prompts.txt --leave-out max_tokens --limit-field max_tokens", "--limit-field"
    ),
    # trace api
    Case("trace api", f"@plan.json {KEY} -o @out --api-key-header api-key", "--api-key-header", "give --api-key"),
    Case("trace api", f"@plan.json {KEY} -o @out --max-requests 10", "--max-requests"),
    Case("trace api", f"@plan.json {KEY} -o @out --max-total-tokens 5000", "--max-total-tokens"),
    Case("trace api", f"@plan.json {KEY} -o @out --dry-run --fail", "--fail", "looks for no mark"),
    Case("trace api", f"@plan.json {KEY} -o @out --tenant a", "--tenant", "no accounts"),
    Case("trace api", f"@plan.json {KEY} -o @out --tenants-file @nobody.txt", "--tenants-file", "names no account"),
    Case("trace api", f"@plan.json {KEY} -o @out --dry-run --max-requests 11", "--max-requests"),
    # the race readout, and what is of other traces
    *each("trace weights", WEIGHTS, (*OF_OWNERS, "--no-quotes"), "of the race readout, and no --owner-model"),
    *each("trace weights", f"{WEIGHTS} --owner-model @m", OF_OTHER_WEIGHTS, "in a race readout"),
    Case("trace weights", f"{WEIGHTS} --owner-model @m --taken filtered", "ended", "can't be read"),
    Case("trace weights", f"{WEIGHTS} --owner-model @m --read @prose.jsonl", "--read once", "in that order"),
    *each("trace plan", f"{PLAN} --prompts @prompts.txt", OF_OWNERS + OF_RACE_PLANS, "and no --owner-model"),
    *each("trace plan", f"{PLAN} --read @ids.jsonl --owner-model @m", OF_OTHER_PLANS, "in a race readout"),
    Case("trace plan", f"{PLAN} --read @ids.jsonl --owner-model @m --ask echo --per-answer 3", "--per-answer", "whole"),
    Case("trace plan", f"{PLAN} --owner-model @m", "--read", "in the order of serving"),
    *each("trace api", f"@plan.json {KEY} -o @out", ("--read @ids.jsonl", "--no-quotes"), "without --owner-model"),
    # recompute
    Case("recompute", "@trace/report.json --key file:@owner.key --inputs @trace", "--inputs"),
    Case("recompute", "@trace/report.json --key file:@owner.key --tokenizer @trace", "--tokenizer"),
    # plan
    Case("plan", "--spec @spec.json --reading other --overlap 0.5", "--overlap"),
    Case("plan", "--spec @spec.json --share 0 --overlap 0.5", "--overlap"),
    Case("plan", "--spec @spec.json --mode api --reference base", "--reference"),
    Case("plan", "--spec @spec.json --model ./m", "--model", "go together"),
    Case("plan", "--spec @spec.json --model ./m --text @plain.txt --entropy 2", "--entropy", "leave one"),
]


def _words(case: Case, files: Path) -> list[str]:
    return [*case.command.split(), *(word.replace("@", f"{files}/", 1) for word in case.arguments.split())]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case.command}: {case.arguments}")
def test_an_option_that_cannot_be_used_is_refused(case: Case, files: Path) -> None:
    done = run(*_words(case, files))
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert case.option in last and case.says in last, done.stderr
    assert not done.stdout and not (files / "out").exists() and not (files / "p.json").exists()


COMMANDS = [
    *("detect", "demo", "scan", "trace weights", "trace plan", "trace api", "recompute", "plan"),
    *("report verify", "report render", "report sign", "report keygen"),
]
ALWAYS = {
    # What they say is used, checked or put on record in every run.
    *("spec", "key", "alpha", "decoys", "tokenizer", "format", "commitment", "output", "json", "fail", "quiet"),
    *("examiner", "case", "no-quotes", "dry-run", "seed"),
    # scan
    *("on-error", "sample", "fdr", "engine", "workers", "work", "keep-work"),
    # detect: the model's test is the option's own
    "aware",
    # traces: they say what is read, asked or tested
    *("read", "control", "calibrate", "served", "placebo", "readout", "contexts", "two-sided", "dtype", "prompts"),
    *("count", "samples", "endpoint", "logprobs", "temperature", "max-tokens", "target", "api-key", "concurrency"),
    *("timeout", "attempts"),
    # plan: each is an assumption about the student or a way to look that some row of the tables has
    *("training-tokens", "reading", "mode", "answer-tokens", "memory", "drift", "mismatch", "html", "share", "text"),
    # reports: what is checked or drawn, and by whom
    *("inputs", "public-key", "signing-key", "scheme"),
}
HERE = {
    # These have an effect in every run of these commands, though not in those of others.
    # --leave-out of a scan is refused where no file holds chats: tests/detect/corpus; --base where no model is an
    # adapter: tests/watermark/models.
    "scan": {"force", "pdf", "reference", "leave-out"},
    "trace weights": {"force", "pdf", "reference", "owner-model", "base"},
    "trace plan": {"model", "max-requests", "max-total-tokens", "owner-model", "leave-out"},
    "trace api": {"force", "pdf", "reference"},
    "report render": {"force"},
}
READ = {"taken", "complete", "read-tenant"}
"""Of `trace weights`, refused where no text that is read has what they are about: tests/detect/student."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_the_table_or_has_an_effect_always(command: str) -> None:
    """A new option must be thought about: when has it no effect?"""
    found: click.Command = main
    for word in command.split():
        assert isinstance(found, click.Group)
        found = found.commands[word]
    options = {max(p.opts, key=len).lstrip("-") for p in found.params if isinstance(p, click.Option)}
    rows = {case.option.lstrip("-") for case in TABLE if case.command == command}
    thought_about = rows | ALWAYS | HERE.get(command, set()) | (READ if command == "trace weights" else set())
    assert options <= thought_about, f"{command}: {sorted(options - thought_about)}"


@pytest.mark.parametrize("given", [("--taken", "all"), ("--complete", "@served.ledger"), ("--read-tenant", "acme")])
def test_what_is_said_of_marked_answers_is_refused_where_none_are_read(
    given: tuple[str, str], files: Path, smollm2_dir: Path
) -> None:
    tokenizer = load_tokenizer(smollm2_dir)
    made = spec(vocabulary_size=vocabulary_size(tokenizer), tokenizer=tokenizer_fingerprint(tokenizer))
    write_spec(files / "demo.json", made)
    done = run(
        "trace", "weights", smollm2_dir, "--read", files / "plain.txt", "--spec", files / "demo.json",
        "--key", f"file:{files / 'owner.key'}", "-o", files / "traced", "--no-pdf", given[0],
        given[1].replace("@", f"{files}/"),
    )  # fmt: skip
    (files / "demo.json").unlink()
    assert done.exit_code == 2, done.output
    assert given[0] in done.stderr.splitlines()[-1] or given[1] in done.stderr.splitlines()[-1], done.stderr
    assert not (files / "traced" / "report.json").exists()
