"""Every command's --json is one document that its published schema takes; ids and hashes stand alone without it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from benchmarks.distillation.server import Server
from detect.cli.main import main
from detect.cli.schemas import json_schema, schema_names, write_schemas
from detect.records.detection import Record
from detect.records.reading import read_record
from tests.detect.student.asking.conftest import tiny_model  # noqa: F401 (the same model that API traces are tried on)
from tests.watermark.twins.pairs import pair
from watermark.keys import KeyRing, load_master
from watermark.ledger import Ledger
from watermark.spec import load_spec
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import coin_key, coin_proof, tossed

ROOT = Path(__file__).parents[3]
PROMPTS = [f"Tell me about lighthouse {number}." for number in range(6)]
FOREIGN_KEY = 998877665544


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def commands(group: click.Group = main, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


def check(document: dict[str, Any], name: str) -> None:
    """Hold a document against the published schema of that name, which must know all of its fields."""
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_bytes())
    Draft202012Validator(schema).validate(document)
    assert document.keys() <= schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"].keys()


@dataclass(frozen=True)
class Case:
    """A folder in which every command was run with --json: its results by name of the schema, and their statuses."""

    folder: Path
    results: dict[str, Result]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, tiny_model: tuple[Any, Any]) -> Case:  # noqa: F811
    folder = tmp_path_factory.mktemp("case")
    for part in tiny_model:
        part.save_pretrained(folder / "model")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    config = {"algorithm": "gumbel", "key": FOREIGN_KEY, "context_width": 2}
    (folder / "watermark-config.json").write_text(json.dumps(config))
    results: dict[str, Result] = {}

    def did(name: str, *words: object, status: int = 0) -> Result:
        result = results[name] = run(*words, "--json")
        assert result.exit_code == status, (name, result.output)
        return result

    key = ["--key", f"file:{folder / 'owner.key'}"]
    keys = ["--spec", folder / "spec.json", *key]
    model, answers = folder / "model", folder / "answers.jsonl"
    did("result-keygen", "keygen", folder / "owner.key")
    did("result-spec", "spec", folder / "spec.json", *key, "--model", model)
    foreign = ["--format", "vllm-gumbel", "--from", folder / "watermark-config.json", "--model", model]
    foreign += ["-o", folder / "foreign.json", "--key-out", folder / "foreign.key"]
    did("result-spec-import", "spec", "import", *foreign)
    did("result-commit", "commit", *keys, "-o", folder / "commitment.json")
    did("result-verify-commitment", "verify-commitment", folder / "commitment.json", *keys)
    marked = [*keys, "--model", model, "--prompts", folder / "prompts.txt", "--dtype", "float32", "--seed", 1]
    did("result-generate", "generate", *marked, "--max-new-tokens", 40, "-o", answers)

    tested = [*keys, "--tokenizer", model, "--decoys", 5]
    did("detection", "detect", answers, *tested, "-o", folder / "detected")
    scanned = ["scan", answers, *tested, "--null-corpus", "none", "--no-pdf", "--workers", 1, "-o", folder / "scanned"]
    did("result-scan-dry-run", *scanned, "--dry-run")
    did("scan", *scanned)
    did("power-plan", "plan", "--spec", folder / "spec.json", "--contexts", 1000)
    weights = ["trace", "weights", model, "--read", answers, "--taken", "all", "--contexts", 200, "--dtype", "float32"]
    did("trace", *weights, *tested, "--no-pdf", "-o", folder / "traced")
    with Server(*tiny_model) as server:
        asked = ["--model", "student", "--prompts", folder / "prompts.txt", "--samples", 2, "--max-tokens", 20]
        did("result-trace-plan", "trace", "plan", server.url, *keys, *asked, "-o", folder / "plan.json")
        api = ["trace", "api", folder / "plan.json", *keys, "--tokenizer", model, "--no-pdf", "-o", folder / "asked"]
        did("result-trace-api-dry-run", *api, "--dry-run")
        did("trace, by an endpoint", *api)
        read = ["--read", answers]
        race = [*read, "--owner-model", model, "--dtype", "float32", "--ask", "greedy", "--per-answer", 1]
        race = ["trace", "plan", server.url, "--model", "student", *tested, *race, "-o", folder / "race.json"]
        did("result-trace-plan-race", *race)
        api = ["trace", "api", folder / "race.json", *read, *keys, "--tokenizer", model, "--no-pdf"]
        did("result-trace-api-dry-run-race", *api, "-o", folder / "raced", "--dry-run")
        did("race", *api, "-o", folder / "raced")
        checked = ["serve-check", server.url, *keys, "--count", 4, "--max-tokens", 40, "--no-special"]
        did("serve-check", *checked, "--tokenizer", model, status=3)

    for kind in ("detected", "scanned", "traced", "raced"):
        again = ["--tokenizer", model, "--inputs", folder] if kind not in ("traced", "raced") else []
        did(f"result-recompute, {kind}", "recompute", folder / kind / "report.json", *key, *again)
        did(f"result-report-verify, {kind}", "report", "verify", folder / kind / "report.json")
    report = folder / "scanned" / "report.json"
    did("result-report-render", "report", "render", report, "-o", folder / "drawn", "--format", "text")
    did("result-report-keygen", "report", "keygen", folder / "owner.pem")
    did("result-report-sign", "report", "sign", report, "--signing-key", f"file:{folder / 'owner.pem'}")
    write_ledgers(folder)
    did("result-ledger-info", "ledger", "info", folder / "one.ledger")
    did("result-ledger-hashes", "ledger", "hashes", answers)
    ledgers = [folder / "one.ledger", folder / "two.ledger"]
    did("result-ledger-merge", "ledger", "merge", *ledgers, "-o", folder / "all.ledger")
    write_twins(folder)
    twins, key = folder / "twins.ledger", ["--twin-key", f"file:{folder / 'owner.key'}"]
    did("result-twins-info", "twins", "info", twins, *key)
    did("result-twins-commit", "twins", "commit", twins, *key, "-o", folder / "twins.json")
    did("result-twins-reveal", "twins", "reveal", twins, f"{0:032x}", *key, "-o", folder / "shown.json")
    did("result-twins-verify", "twins", "verify", folder / "shown.json", "--commitment", folder / "twins.json")
    did("result-twins-export", "twins", "export", twins, *key, "-o", folder / "pairs.jsonl")
    later = ["--model", model, "--twin-ledger", folder / "later.ledger", *key, "--temperature", 1, "--top-p", 1]
    marked = ["--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}", "--dtype", "float32"]
    did("result-twins-regenerate", "twins", "regenerate", answers, *later, "--max-tokens", 40, *marked)
    suspect = ["trace", "twins", model, "--ledger", twins, *key, "--dtype", "float32", "-o", folder / "tested"]
    did("result-trace-twins-dry-run", *suspect, "--dry-run")
    did("twins", *suspect, "--no-pdf")
    report = folder / "tested" / "report.json"
    owner = ["--key", f"file:{folder / 'owner.key'}"]
    did("result-recompute, twins", "recompute", report, *owner, "--inputs", folder)
    did("result-report-verify, twins", "report", "verify", report)
    did("result-twins-erase", "twins", "erase", twins, *key, "--account", "acme", "--yes")
    did("result-schema", "schema")
    return Case(folder, results)


def write_ledgers(folder: Path) -> None:
    ring = KeyRing.from_master(load_master(f"file:{folder / 'owner.key'}"))
    for number, name in enumerate(("one", "two")):
        path = folder / f"{name}.ledger"
        with Ledger.create(path, load_spec(folder / "spec.json"), ring, megabytes=1) as ledger:
            ledger.add(None, 0, np.arange(number, 20 + number)[:, None].repeat(2, 1))


def write_twins(folder: Path) -> None:
    secret = load_master(f"file:{folder / 'owner.key'}")
    with TwinLedger.open(folder / "twins.ledger", secret, write=True) as ledger:
        for number in range(3):
            proof = coin_proof(coin_key(secret), f"{number:032x}")
            ledger.append(pair(number, proof=proof, served=tossed(proof)))


RUN_ON = ["gateway"]
"""Commands that end when they are told to, and then have no result; what they are at is told in other ways."""


def test_every_command_that_ends_has_json() -> None:
    lacking = [name for name, command in commands() if "--json" not in [o for p in command.params for o in p.opts]]
    assert lacking == RUN_ON
    import_spec = cast(Any, main.commands["spec"]).instead["import"]
    assert any("--json" in parameter.opts for parameter in import_spec.params)


def test_each_result_is_one_document_of_its_schema(case: Case) -> None:
    seen = set()
    for step, result in case.results.items():
        name = step.partition(",")[0]
        document = json.loads(result.stdout)
        assert isinstance(document, dict) and result.stdout.endswith("}\n"), step
        check(document, name)
        if name.startswith("result-"):
            assert document["format"] == f"dyetrace-{name.removeprefix('result-')}-1"
        seen.add(name)
    assert {name for name in schema_names() if name.startswith("result-")} <= seen


def test_files_and_lines_are_of_their_schemas(case: Case) -> None:
    files = {
        "detection": "detected/report.json",
        "scan": "scanned/report.json",
        "trace": "asked/report.json",
        "trace-plan": "plan.json",
        "race": "raced/report.json",
        "race-plan": "race.json",
        "twins": "tested/report.json",
        "twin-plan": "tested/plan.json",
        "spec": "spec.json",
        "commitment": "commitment.json",
        "twin-commitment": "twins.json",
        "twin-opening": "twins.json.opening",
        "twin-reveal": "shown.json",
        "opening": "commitment.json.opening",
        "signature": "scanned/report.json.sig",
        "scan-run": "scanned/run.json",
    }
    for name, path in files.items():
        check(json.loads((case.folder / path).read_bytes()), name)
    for name, path in {"answer": "answers.jsonl", "hit": "scanned/hits.jsonl", "twin-pair": "pairs.jsonl"}.items():
        lines = (case.folder / path).read_text().splitlines()
        assert lines
        for line in lines:
            check(json.loads(line), name)


def test_schemas_refuse_what_is_changed(case: Case) -> None:
    """The schemas say something: other types, lacking fields and other versions don't pass."""
    report = json.loads((case.folder / "detected" / "report.json").read_bytes())
    validator = Draft202012Validator(json_schema("detection"))
    change: dict[str, Any]
    for change in ({"version": 2}, {"format": "dyetrace-scan"}, {"documents": {}}, {"alpha": "small"}, {"more": 1}):
        assert not validator.is_valid(report | change), change
    assert not validator.is_valid({name: value for name, value in report.items() if name != "spec"})
    assert validator.is_valid(report)


def test_no_secret_is_printed(case: Case) -> None:
    secrets = [load_master(f"file:{case.folder / 'owner.key'}").reveal_hex(), str(FOREIGN_KEY)]
    secrets.append(json.loads((case.folder / "commitment.json.opening").read_bytes())["salt"])
    secrets.append((case.folder / "owner.pem").read_text().splitlines()[1])
    for step, result in case.results.items():
        assert not [secret for secret in secrets if secret in result.output], step


def test_results_say_what_was_written(case: Case) -> None:
    def told(name: str) -> Any:
        return json.loads(case.results[name].stdout)

    generated, data = told("result-generate"), (case.folder / "answers.jsonl").read_bytes()
    assert (generated["sha256"], generated["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    lengths = [len(json.loads(line)["token_ids"]) for line in data.splitlines()]
    assert (generated["answers"], generated["prompts"], generated["tokens"]) == (6, 6, sum(lengths))
    assert generated["kept"] == 0 and generated["spec_id"] == told("result-spec")["spec_id"]
    assert told("result-spec")["key_fingerprint"] == told("result-keygen")["fingerprint"]
    assert told("result-commit")["sha256"] == told("result-verify-commitment")["sha256"]
    assert told("trace, by an endpoint")["plan"]["sha256"] == told("result-trace-plan")["sha256"]
    assert told("result-trace-api-dry-run")["requests"] == 12 == told("result-trace-plan")["prompts"] * 2
    merged = told("result-ledger-merge")
    assert merged["sha256"] == hashlib.sha256((case.folder / "all.ledger").read_bytes()).hexdigest()
    assert merged["answers"] == 2 and len(merged["header"]["parts"]) == 2
    assert told("result-report-sign")["public_key"] != told("result-report-keygen")["public_path"]
    assert told("result-recompute, scanned")["count"] == told("scan")["documents"] == 6
    drawn = told("result-report-render")["files"]
    text = (case.folder / "drawn" / "report.txt").read_bytes()
    assert drawn == [{"name": "report.txt", "sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}]
    assert told("result-schema")["names"] == schema_names()
    assert told("result-scan-dry-run")["files"] == 1


def test_what_does_not_hold_is_told_as_json_too(case: Case, tmp_path: Path) -> None:
    key = ["--key", f"file:{case.folder / 'owner.key'}"]
    opening = json.loads((case.folder / "commitment.json.opening").read_bytes())
    (tmp_path / "opening").write_text(json.dumps(opening | {"salt": "00" * 32}))
    keys = ["--spec", case.folder / "spec.json", *key]
    held = run("verify-commitment", case.folder / "commitment.json", *keys, "--opening", tmp_path / "opening", "--json")
    assert held.exit_code == 3 and "does not fit" in json.loads(held.stdout)["reason"]
    check(json.loads(held.stdout), "result-verify-commitment")

    report = json.loads((case.folder / "detected" / "report.json").read_bytes())
    report["documents"][0]["hypotheses"][0]["subkeys"][0]["total"] += 1
    (tmp_path / "report.json").write_text(json.dumps(report))
    again = ["--tokenizer", case.folder / "model", "--inputs", case.folder, "--json"]
    recomputed = run("recompute", tmp_path / "report.json", *key, *again)
    assert recomputed.exit_code == 3 and "other sums" in json.loads(recomputed.stdout)["differences"][0]
    check(json.loads(recomputed.stdout), "result-recompute")
    verified = run("report", "verify", tmp_path / "report.json", "--json")
    assert verified.exit_code == 3 and not json.loads(verified.stdout)["holds"]
    check(json.loads(verified.stdout), "result-report-verify")


def test_errors_leave_standard_output_empty(case: Case, tmp_path: Path) -> None:
    for words in (
        ["keygen", case.folder / "owner.key"],
        ["spec", tmp_path / "spec.json", "--key", "file:/nowhere"],
        ["detect", "/nowhere", "--spec", case.folder / "spec.json", "--key", f"file:{case.folder / 'owner.key'}"],
        ["ledger", "info", case.folder / "spec.json"],
        ["report", "render", case.folder / "spec.json", "-o", tmp_path / "drawn"],
        ["schema", "nonsense"],
    ):
        refused = run(*words, "--json")
        assert (refused.exit_code, refused.stdout) == (2, ""), words
        assert refused.stderr.startswith("dyetrace: ") and refused.stderr.count("\n") == 1


def test_answers_on_standard_output_are_json_already(case: Case) -> None:
    refused = run("generate", "--prompts", case.folder / "prompts.txt", "--model", case.folder / "model", "--json")
    assert refused.exit_code == 2 and "goes with -o FILE" in refused.stderr


def test_ids_and_hashes_stand_alone(case: Case, tmp_path: Path) -> None:
    """What `id=$(dyetrace spec ...)` gives a script."""
    key = ["--key", f"file:{tmp_path / 'owner.key'}"]
    keys = ["--spec", tmp_path / "spec.json", *key]
    model = ["--model", case.folder / "model"]
    foreign = ["--format", "vllm-gumbel", "--from", case.folder / "watermark-config.json", *model]
    foreign += ["-o", tmp_path / "foreign.json", "--key-out", tmp_path / "foreign.key"]
    made = [*keys, *model, "--prompts", case.folder / "prompts.txt", "--dtype", "float32", "--max-new-tokens", 4]
    asked = ["--model", "m", "--prompts", case.folder / "prompts.txt", "-o", tmp_path / "plan.json"]
    report = case.folder / "scanned" / "report.json"
    ledgers = [case.folder / "one.ledger", case.folder / "two.ledger"]
    hexadecimal = "[0-9a-f]"
    for pattern, words in (
        (f"{hexadecimal}{{32}}", ["keygen", tmp_path / "owner.key"]),
        (f"{hexadecimal}{{32}}", ["keygen", tmp_path / "acme.key", "--tenant", "acme", *key]),
        (f"dt1-{hexadecimal}{{32}}", ["spec", tmp_path / "spec.json", *key, *model]),
        (f"dt1-{hexadecimal}{{32}}", ["spec", "import", *foreign]),
        (f"{hexadecimal}{{64}}", ["commit", *keys, "-o", tmp_path / "commitment.json"]),
        (f"{hexadecimal}{{64}}", ["generate", *made, "-o", tmp_path / "answers.jsonl"]),
        (f"{hexadecimal}{{64}}", ["trace", "plan", "http://127.0.0.1:9/v1", *keys, *asked]),
        (f"{hexadecimal}{{64}}", ["report", "keygen", tmp_path / "owner.pem"]),
        (f"{hexadecimal}{{64}}", ["report", "sign", report, "--signing-key", f"file:{tmp_path / 'owner.pem'}"]),
        (f"{hexadecimal}{{64}}", ["ledger", "merge", *ledgers, "-o", tmp_path / "all.ledger"]),
        (r"\S+/drawn/report\.txt", ["report", "render", report, "-o", tmp_path / "drawn", "--format", "text"]),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
        assert re.fullmatch(f"{pattern}\n", done.stdout), (words, done.stdout)
        assert "wrote " in done.stderr
    assert run("schema").stdout.split() == schema_names()


def test_the_schema_that_is_printed_is_the_one_that_is_published() -> None:
    for name in schema_names():
        published = (ROOT / "docs" / "schemas" / f"{name}.json").read_text()
        assert run("schema", name).stdout == published == run("schema", name, "--json").stdout


def test_published_schemas_are_those_that_the_code_makes(tmp_path: Path) -> None:
    """Write them anew by `python -m detect.cli.schemas docs/schemas` where this fails."""
    write_schemas(tmp_path / "schemas")
    made, published = (
        {p.name: p.read_bytes() for p in f.iterdir()} for f in (tmp_path / "schemas", ROOT / "docs/schemas")
    )
    assert made == published
    for name in schema_names():
        Draft202012Validator.check_schema(json_schema(name))


def test_every_field_of_a_result_is_explained() -> None:
    lacking = []
    for name in schema_names():
        if name.startswith("result-"):
            schema = json_schema(name)
            fields = schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
            lacking += [f"{name}.{field}" for field, said in fields.items() if "description" not in said]
    assert [field for field in lacking if not field.endswith(".format")] == []


def test_the_page_lists_every_command_and_links_every_schema() -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    rows = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    told = {words.split(" -")[0] for words in re.findall(r"`([^`]+)`", rows)}
    assert {name for name, _ in commands()} | {"spec import"} <= told
    assert set(re.findall(r"\(schemas/([a-z-]+)\.json\)", page)) == set(schema_names())


def test_a_demo_is_printed_as_the_detection_that_it_is(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(Record, case.folder / "detected" / "report.json")
    monkeypatch.setattr("detect.cli.demo.run_demo", lambda folder, scheme, say: record)
    done = run("demo", "-o", tmp_path / "demo", "--json")
    assert done.exit_code == 0, done.output
    check(json.loads(done.stdout), "detection")
