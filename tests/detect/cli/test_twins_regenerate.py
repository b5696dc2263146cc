"""`dyetrace twins regenerate`: from a log to a private ledger, by a folder or an endpoint; bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.distillation.server import Fault, Server
from detect.cli.main import main
from tests.detect.marking_job import MarkingJob, marking_job
from tests.watermark.twins.pairs import KEY
from watermark.keys import write_key_file
from watermark.models.folder import load_model
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair

SETTINGS = ["--temperature", "0.9", "--top-p", "0.95", "--max-tokens", "6"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MarkingJob:
    job = marking_job(tmp_path_factory.mktemp("regenerate"))
    write_key_file(job.folder / "twins.key", KEY)
    return job


@pytest.fixture(scope="module")
def loaded(job: MarkingJob) -> tuple[Any, Any]:
    return load_model(job.model, "float32")


@pytest.fixture
def server(loaded: tuple[Any, Any]) -> Iterator[Server]:
    with Server(*loaded, name="tiny") as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "served.jsonl"
    lines = [{"prompt": f"{i} {i + 1}", "text": f"{i} 7", "token_ids": [i, 7]} for i in range(20, 27)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(job: MarkingJob, log: Path, *more: object, model: object = None, status: int = 0) -> Result:
    ledger, given = log.with_name("twins.ledger"), model or job.model
    words = ["twins", "regenerate", log, "--model", given, "--twin-ledger", ledger]
    words += ["--twin-key", f"file:{job.folder / 'twins.key'}", "--dtype", "float32", *more]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == status, done.output
    assert KEY.reveal_hex() not in done.output
    if status:
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.output
    return done


def pairs(log: Path) -> list[Pair]:
    with TwinLedger.open(log.with_name("twins.ledger"), KEY) as ledger:
        return list(ledger.pairs())


def test_each_answer_of_a_log_gets_one_twin_and_never_a_second(job: MarkingJob, log: Path) -> None:
    told = json.loads(run(job, log, *SETTINGS, "--json").stdout)
    assert (told["served"], told["pairs"], told["refused"], told["unserved"]) == (7, 7, 0, False)
    before = pairs(log)
    assert {pair.level for pair in before} == {"regenerated"} and len(before) == 7
    assert all(pair.engine["model_sha256"] and pair.answers[0].text.endswith(" 7") for pair in before)
    with log.open("a") as file:
        file.write(json.dumps({"prompt": "40 41", "text": "9", "token_ids": [9]}) + "\n")
    assert "7 twins are in" in run(job, log, *SETTINGS).stderr
    assert pairs(log)[:7] == before and len(pairs(log)) == 8


def test_an_endpoint_is_asked_once_for_each_answer_with_the_request_on_record(
    job: MarkingJob, log: Path, server: Server
) -> None:
    run(job, log, *SETTINGS, "--model-name", "tiny", model=server.url)
    assert len(server.received) == 7
    for received in server.received:
        assert {"temperature": 0.9, "top_p": 0.95, "max_tokens": 6, "model": "tiny"}.items() <= received.body.items()
        assert received.path.endswith("/completions") and "top_k" not in received.body
    assert sorted(pair.request["prompt"] for pair in pairs(log)) == [f"{i} {i + 1}" for i in range(20, 27)]
    run(job, log, *SETTINGS, "--model-name", "tiny", model=server.url)
    assert len(server.received) == 7


def test_an_endpoint_that_fails_in_between_is_asked_for_the_rest_later(
    job: MarkingJob, log: Path, loaded: tuple[Any, Any]
) -> None:
    faults = [None, None, Fault("status", 401)]
    with Server(*loaded, name="tiny", faults=faults) as server:
        more = (*SETTINGS, "--model-name", "tiny", "--concurrency", "1")
        failed = run(job, log, *more, model=server.url, status=5)
        assert "the same command goes on from there" in failed.stderr
        had = pairs(log)
        assert len(had) == 2
        run(job, log, *more, model=server.url)
        assert pairs(log)[:2] == had and len(pairs(log)) == 7
        assert len(server.received) == 8


def test_a_request_that_an_endpoint_refuses_stays_without_a_twin(
    job: MarkingJob, log: Path, loaded: tuple[Any, Any]
) -> None:
    with Server(*loaded, name="tiny", faults=[Fault("status", 400)]) as server:
        done = run(job, log, *SETTINGS, "--model-name", "tiny", "--concurrency", "1", "--json", model=server.url)
    told = json.loads(done.stdout)
    assert (told["pairs"], told["refused"]) == (6, 1)


def test_answers_that_were_never_served_are_kept_apart(job: MarkingJob, log: Path) -> None:
    run(job, log, *SETTINGS, "--unserved")
    assert all("unserved" in pair.engine for pair in pairs(log))
    assert "in a ledger of their own" in run(job, log, *SETTINGS, status=2).stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (SETTINGS[:-2], "give --max-tokens"),
        ([*SETTINGS[:-1], "1"], "served under other settings"),
        ([*SETTINGS, "--spec", "none.json"], "--spec needs --key"),
        ([*SETTINGS, "--key", "file:none.key"], "--key needs --spec"),
        ([*SETTINGS, "--system", "Be brief."], "no chat template"),
        (["--temperature", "0", *SETTINGS[2:]], "temperature must be above 0"),
    ],
)
def test_what_can_t_be_drawn_is_one_line_and_leaves_no_ledger(
    job: MarkingJob, log: Path, more: list[str], says: str
) -> None:
    assert says in run(job, log, *more, status=2).stderr
    assert not log.with_name("twins.ledger").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 8 is not JSON"),
        ({"prompt": "20", "text": "8 8", "token_ids": [7]}, "line 8: its token ids are other text"),
        ({"prompt": "20", "text": "8", "model": "large"}, "line 8 was made by model 'large', and 'model' is given"),
        ({"prompt": "20", "text": "8", "model_sha256": "ab" * 32}, "line 8 was made by the model with hash abab"),
        ({"prompt": "20", "text": "8", "temperature": 0.7}, "line 8 was served with temperature 0.7"),
    ],
)
def test_a_line_of_another_model_or_law_is_refused_before_anything_is_drawn(
    job: MarkingJob, log: Path, line: Any, says: str
) -> None:
    with log.open("a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    assert says in run(job, log, *SETTINGS, status=2).stderr
    assert not log.with_name("twins.ledger").exists()


def test_a_log_or_a_model_that_is_not_there_is_one_line(job: MarkingJob, log: Path, tmp_path: Path) -> None:
    assert "cannot read served answers" in run(job, tmp_path / "none.jsonl", *SETTINGS, status=2).stderr
    run(job, log, *SETTINGS, model=tmp_path / "no-model", status=2)
    assert "give --model-name" in run(job, log, *SETTINGS, model="http://127.0.0.1:9/v1", status=2).stderr
    assert not log.with_name("twins.ledger").exists()
