"""`dyetrace generate --twins`: pairs are on record before an answer is written, and no answer tells that it has one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.cli.statuses import INTERNAL
from tests.detect.marking_job import MarkingJob, marking_job
from watermark.files.partial import PartialFile, partial_paths
from watermark.keys import SecretKey, write_key_file
from watermark.models.writing import write
from watermark.spec import load_spec
from watermark.twins.data_keys import keys_path
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, coin_key, coin_proof, is_twinned, request_time, tossed
from watermark.twins.twinning import SUBKEYS

KEY = SecretKey(b"twins" * 6 + b"!!")


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pairs(path: Path) -> list[Pair]:
    with TwinLedger.open(path, KEY) as ledger:
        return list(ledger.pairs())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MarkingJob:
    made = marking_job(tmp_path_factory.mktemp("marking"))
    write_key_file(made.folder / "twins.key", KEY)
    return made


@pytest.fixture
def twins(job: MarkingJob, tmp_path: Path) -> Callable[..., list[str]]:
    """Options that put pairs into twins.ledger of the test's folder."""

    def options(share: float = 1.0, name: str = "twins.ledger") -> list[str]:
        key = f"file:{job.folder / 'twins.key'}"
        return ["--twins", str(share), "--twin-ledger", str(tmp_path / name), "--twin-key", key]

    return options


def unmarked(job: MarkingJob, *more: str | Path) -> list[str]:
    words = job.generate(*more)
    return [word for word in words if word not in ("--spec", str(job.spec), "--key", job.key)]


@pytest.mark.parametrize("marked", [True, False])
def test_each_line_is_the_answer_that_its_coin_serves_and_looks_like_any_other(
    job: MarkingJob, tmp_path: Path, twins: Callable[..., list[str]], marked: bool
) -> None:
    plain, output = tmp_path / "plain.jsonl", tmp_path / "a.jsonl"
    command = job.generate if marked else lambda *more: unmarked(job, *more)
    assert run(*command("-o", plain)).exit_code == 0
    done = run(*command("-o", output, "--json", *twins()))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["twins"] == 7
    found, kept = lines(output), pairs(tmp_path / "twins.ledger")
    assert [line.keys() for line in found] == [line.keys() for line in lines(plain)]
    assert [line["id"] for line in found] == [str(number) for number in range(7)]
    coins = coin_key(KEY)
    for line, pair in zip(found, kept, strict=True):
        assert pair.prompt == line["prompt"] and pair.prompt_token_ids == line["prompt_token_ids"]
        assert pair.proof == coin_proof(coins, pair.id) and pair.served == tossed(pair.proof)
        served, withheld = pair.answers[pair.served], pair.answers[1 - pair.served]
        assert (served.text, served.token_ids) == (line["text"], line["token_ids"])
        assert {one.finish_reason for one in pair.answers} <= {"stop", "length"}
        assert withheld.text not in json.dumps(line)
        if marked:
            marks = [int(mark) for mark in pair.engine[SUBKEYS].split()]
            assert marks[0] != marks[1] and marks[pair.served] == line["subkey"]
        assert pair.request["max_tokens"] == 12 and pair.request["model"] == "model"
    assert "twin" not in output.read_text()
    assert KEY.reveal_hex() not in done.output
    assert set(os.listdir(tmp_path)) == {"plain.jsonl", "a.jsonl", "twins.ledger", "twins.ledger.keys"}


def test_both_answers_are_what_the_marks_say(job: MarkingJob, tmp_path: Path, twins: Callable[..., list[str]]) -> None:
    """A marked answer is decided by its sub-key: under the recorded ones a plain run writes the same two answers."""
    from watermark.generate import Sampling, generate_answers
    from watermark.keys import KeyRing, load_master
    from watermark.models.folder import load_model

    assert run(*job.generate("-o", tmp_path / "a.jsonl", "--limit", "2", *twins())).exit_code == 0
    spec, ring = load_spec(job.spec), KeyRing.from_master(load_master(job.key))
    model, tokenizer = load_model(job.model, "float32")
    for pair in pairs(tmp_path / "twins.ledger"):
        assert isinstance(pair.prompt, str)
        sampling = Sampling(max_new_tokens=12, samples=4)
        again = {a.subkey: a.token_ids for a in generate_answers(model, tokenizer, [pair.prompt], sampling, spec, ring)}
        marks = [int(mark) for mark in pair.engine[SUBKEYS].split()]
        assert [answer.token_ids for answer in pair.answers] == [again[mark] for mark in marks]


def test_the_share_is_that_of_the_nonces_and_others_get_one_answer(
    job: MarkingJob, tmp_path: Path, twins: Callable[..., list[str]]
) -> None:
    prompts = tmp_path / "many.txt"
    prompts.write_text("".join(f"{10 + number % 40}\n" for number in range(120)))
    more: list[str | Path] = ["--prompts", prompts, "--max-new-tokens", "1", "--batch", "40", "--seed", "3"]
    assert run(*unmarked(job, "-o", tmp_path / "a.jsonl", *more, *twins(0.25))).exit_code == 0
    found, kept = lines(tmp_path / "a.jsonl"), pairs(tmp_path / "twins.ledger")
    assert len(found) == 120 and 10 <= len(kept) <= 52  # 4.2 sigma
    assert all(is_twinned(coin_key(KEY), pair.id, 0.25) for pair in kept)
    assert 0 < sum(pair.served for pair in kept) < len(kept)


def test_a_pair_is_dated_when_its_request_comes_and_not_when_its_answers_end(
    job: MarkingJob, tmp_path: Path, twins: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[str]()

    def drawn(*arguments: Any, **settings: Any) -> list[list[int]]:
        begun.append(request_time())
        return write(*arguments, **settings)

    monkeypatch.setattr("watermark.generate.write", drawn)
    assert run(*job.generate("-o", tmp_path / "a.jsonl", "--batch", "4", *twins())).exit_code == 0
    made = [pair.made for pair in pairs(tmp_path / "twins.ledger")]
    assert made == sorted(made) and all(len(one) == len("2026-01-01T00:00:00.000000+00:00") for one in made)
    assert len(begun) == 2 and max(made[:4]) <= begun[0] <= min(made[4:]) and max(made[4:]) <= begun[1]


def test_several_samples_are_requests_of_their_own(
    job: MarkingJob, tmp_path: Path, twins: Callable[..., list[str]]
) -> None:
    done = run(*job.generate("-o", tmp_path / "a.jsonl", "--samples", "2", *twins()))
    assert done.exit_code == 0, done.output
    found, kept = lines(tmp_path / "a.jsonl"), pairs(tmp_path / "twins.ledger")
    assert [line["id"] for line in found][:3] == ["0.0", "0.1", "1.0"] and len(kept) == len(found) == 14
    for one, other in zip(kept[::2], kept[1::2], strict=True):
        marks = [*one.engine[SUBKEYS].split(), *other.engine[SUBKEYS].split()]
        assert len(set(marks)) == 4  # else one pair's withheld answer would be the other one's served answer
    assert [pair.answers[pair.served].text for pair in kept] == [line["text"] for line in found]


def test_more_twins_than_sub_keys_that_differ_are_refused(job: MarkingJob, tmp_path: Path, twins: Any) -> None:
    done = run(*job.generate("-o", tmp_path / "a.jsonl", "--samples", "3", *twins()))
    assert done.exit_code == 2 and "samples and twins of one prompt" in done.stderr
    assert os.listdir(tmp_path) == []


def test_accounts_need_no_spec_where_twins_are_made(job: MarkingJob, tmp_path: Path, twins: Any) -> None:
    command = unmarked(job, "-o", tmp_path / "a.jsonl", "--tenant", "acme")
    assert run(*command).exit_code == 2
    assert run(*command, *twins()).exit_code == 0
    assert {pair.account for pair in pairs(tmp_path / "twins.ledger")} == {"acme"}


class Stopped(BaseException):
    """Ends a run at a chosen moment, as SIGKILL would."""


@pytest.mark.parametrize("batches", [0, 2])
@pytest.mark.parametrize("moment", ["before the ledger", "within the ledger", "after the ledger"])
def test_a_run_that_died_anywhere_goes_on_without_tossing_a_coin_twice(
    job: MarkingJob, tmp_path: Path, twins: Any, monkeypatch: pytest.MonkeyPatch, batches: int, moment: str
) -> None:
    output, ledger = tmp_path / "a.jsonl", tmp_path / "twins.ledger"
    append, append_many = PartialFile.append, TwinLedger.append_many
    done = [0]

    def dying(self: PartialFile, group: bytes) -> None:
        if self.groups == batches and moment == "after the ledger":
            raise Stopped
        append(self, group)

    def dying_many(self: TwinLedger, some: Any, **more: Any) -> list[str]:
        done[0] += 1
        if done[0] == batches + 1 and moment != "after the ledger":
            if moment == "within the ledger":
                append_many(self, some[:1], **more)
                with ledger.open("ab") as file:
                    file.write(b"\1" * 40)
            raise Stopped
        return append_many(self, some, **more)

    command = job.generate("-o", output, *twins())
    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "append", dying)
        patch.setattr(TwinLedger, "append_many", dying_many)
        assert run(*command).exit_code == INTERNAL.number
    served = partial_paths(output)[0].read_bytes()
    before = pairs(ledger)
    assert len(before) == 2 * batches + {"before the ledger": 0, "within the ledger": 1, "after the ledger": 2}[moment]
    ended = run(*command)
    assert ended.exit_code == 0, ended.output
    assert output.read_bytes().startswith(served)
    kept = {pair.prompt: pair for pair in pairs(ledger)}
    assert len(kept) == len(pairs(ledger)) == 7
    assert pairs(ledger)[: len(before)] == before
    for line in lines(output):
        pair = kept[line["prompt"]]
        assert (pair.answers[pair.served].text, pair.answers[pair.served].token_ids) == (
            line["text"],
            line["token_ids"],
        )


def test_what_is_on_record_is_served_even_where_it_would_be_drawn_otherwise_now(
    job: MarkingJob, tmp_path: Path, twins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may draw other texts from the same random bytes; the first draw is the one that counts."""
    import msgspec

    output, ledger = tmp_path / "a.jsonl", tmp_path / "twins.ledger"
    append_many = TwinLedger.append_many

    def other(self: TwinLedger, some: Any, **more: Any) -> list[str]:
        changed = [
            msgspec.structs.replace(
                pair, answers=tuple(msgspec.structs.replace(a, text=f"was {a.text}") for a in pair.answers)
            )
            for pair in some
        ]
        append_many(self, changed, **more)
        raise Stopped

    command = job.generate("-o", output, *twins())
    with monkeypatch.context() as patch:
        patch.setattr(TwinLedger, "append_many", other)
        assert run(*command).exit_code == INTERNAL.number
    assert run(*command).exit_code == 0
    assert [line["text"].startswith("was ") for line in lines(output)] == [True, True, *[False] * 5]
    assert len(pairs(ledger)) == 7


def test_other_twins_are_another_command(job: MarkingJob, tmp_path: Path, twins: Any, monkeypatch: Any) -> None:
    def dying(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "append", dying)
        assert run(*job.generate("-o", tmp_path / "a.jsonl", *twins())).exit_code == INTERNAL.number
    for more, named in ((twins(0.5), "twins"), (twins(1.0, "b.ledger"), "twin_ledger"), ([], "twin_key")):
        done = run(*job.generate("-o", tmp_path / "a.jsonl", *more))
        assert done.exit_code == 2 and f"{named}" in done.stderr and "another command" in done.stderr
    assert not (tmp_path / "b.ledger").exists()


def test_answers_on_standard_output_have_twins_as_well(job: MarkingJob, tmp_path: Path, twins: Any) -> None:
    done = run(*job.generate(*twins()))
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    kept = pairs(tmp_path / "twins.ledger")
    assert [pair.answers[pair.served].text for pair in kept] == [line["text"] for line in found]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda words: words[:2], "--twin-ledger, --twin-key is missing"),
        (lambda words: words[2:], "--twins is missing"),
        (lambda words: ["--twins", "0", *words[2:]], "must lie in (0, 1]"),
        (lambda words: ["--twins", "1.5", *words[2:]], "must lie in (0, 1]"),
        (lambda words: ["--twins", "nan", *words[2:]], "must lie in (0, 1]"),
        (lambda words: [*words, "--placebo"], "need no twins"),
        (lambda words: [*words, "--twin-ledger", "a.jsonl"], "choose another output"),
        (lambda words: [*words, "--twin-ledger", "a.jsonl.partial"], "choose another output"),
        (lambda words: [*words, "--twin-ledger", "nope/t.ledger"], "does not exist"),
        (lambda words: [*words, "--twin-ledger", "taken"], "is not a ledger of twins"),
        (lambda words: [*words, "--twin-ledger", "other.ledger"], "wrong key"),
        (lambda words: [*words, "--twin-key", "file:nope"], "cannot read key file"),
    ],
)
def test_bad_twins_are_one_line_before_the_model_is_loaded_and_leave_nothing(
    job: MarkingJob, tmp_path: Path, twins: Any, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the model was loaded before the arguments were checked")

    monkeypatch.setattr("watermark.models.folder.load_model", load)
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("mine")
    TwinLedger.open(Path("other.ledger"), SecretKey(bytes(32)), write=True).close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = run(*job.generate("-o", "a.jsonl", *change(twins())))
    assert done.exit_code == 2, done.output
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not keys_path(tmp_path / "twins.ledger").exists()
