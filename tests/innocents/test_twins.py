"""Suspects that never learnt from what a coin decided are not found by twins, whatever else they prefer or remember.

Each is tested by the command itself, on the same pairs under two keys, so under two sets of coins. What is measured of
a pair must be the same whichever twin was served; then every row of coins is as likely as any other, and the coins are
tossed anew thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.distillation.server import Server
from detect.records.reading import read_record
from detect.records.twins import TwinRecord
from detect.twins.bets import bets_on_many
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, read_evidence
from tests.detect.twins.made import KEY, ledger_of, twins
from tests.innocents.paths import assert_no_more_than
from tests.innocents.talkers import Says, Talker
from tests.innocents.world import PROMPTS, World, copier_of, run, taught
from watermark.generate import Answer, Sampling, generate_answers
from watermark.keys import SecretKey
from watermark.twins.pair import Pair

OTHER_KEY = SecretKey(bytes(range(1, 33)))
ALPHA = 1e-3
TOSSES = 4000
FEW = 24
"""Pairs where each is asked about by itself."""


@dataclass(frozen=True)
class Material:
    """What the teacher said to each prompt: two answers of a pair, and a third one that nobody was served.

    Attributes
    ----------
    folder
        Of models and ledgers.
    """

    folder: Path
    network: Any
    tokenizer: Any
    first: list[Answer]
    second: list[Answer]
    third: list[Answer]
    networks: dict[str, Any] = field(default_factory=dict)

    @property
    def few(self) -> Material:
        """The first of the pairs, with the same models."""
        folder = self.folder / "few"
        folder.mkdir(exist_ok=True)
        return replace(self, folder=folder, first=self.first[:FEW], second=self.second[:FEW])

    def network_of(self, who: str) -> Any:
        """One of `MODELS`, made once."""
        if who not in self.networks:
            self.networks[who] = MODELS[who](self)
        return self.networks[who]

    def pairs(self, key: SecretKey) -> list[Pair]:
        """The pairs, with the coins of a key."""
        both = zip(self.first, self.second, strict=True)
        return [
            twins(n, a.text, b.text, str(a.prompt), key=key, account=("acme", "zenith")[n % 2])
            for n, (a, b) in enumerate(both)
        ]

    def ledger(self, key: SecretKey) -> Path:
        """A ledger of these."""
        folder = self.folder / key.fingerprint
        if not (folder / "twins.ledger").exists():
            folder.mkdir()
            ledger_of(folder, self.pairs(key), key)
        return folder / "twins.ledger"

    def served(self, key: SecretKey) -> list[Answer]:
        """What was served by the coins of a key."""
        ends = zip(self.pairs(key), self.first, self.second, strict=True)
        return [(a, b)[pair.served] for pair, a, b in ends]

    def saved(self, name: str, network: Any) -> Path:
        """A model in a folder."""
        folder = self.folder / name
        if not folder.exists():
            network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        return folder


@pytest.fixture(scope="module")
def material(world: World, tmp_path_factory: pytest.TempPathFactory) -> Material:
    network, tokenizer = world.model("teacher")
    sampling = Sampling(max_new_tokens=40, batch=60, seed=11)
    first, second, third = (
        list(generate_answers(network, tokenizer, PROMPTS, replace(sampling, seed=seed))) for seed in (11, 12, 13)
    )
    return Material(tmp_path_factory.mktemp("twins"), network, tokenizer, first, second, third)


def cut(answers: Sequence[Answer], length: int) -> list[Answer]:
    """Answers that end early."""
    return [replace_ids(answer, [*answer.token_ids[:length], 0]) for answer in answers]


def drawn_out(answers: Sequence[Answer]) -> list[Answer]:
    """Answers that don't end where they did."""
    return [replace_ids(answer, [i for i in answer.token_ids if i] * 3) for answer in answers]


def replace_ids(answer: Answer, ids: list[int]) -> Answer:
    return msgspec.structs.replace(answer, token_ids=ids)


MODELS: dict[str, Callable[[Material], Any]] = {
    "the teacher": lambda m: m.network,
    "other answers": lambda m: taught(m.network, m.third),
    "both twins": lambda m: taught(m.network, [*m.first, *m.second]),
    "short answers": lambda m: taught(m.network, cut(m.third, 5)),
    "long answers": lambda m: taught(m.network, drawn_out(m.third)),
    "copies": lambda m: copier_of(m.tokenizer),
}
"""Models that no coin had a say in."""


def command(suspect: object, ledger: Path, output: Path, *more: object) -> TwinRecord:
    """`dyetrace trace twins`."""
    key = f"file:{ledger.parent / 'twins.key'}"
    words = ["--ledger", ledger, "--twin-key", key, "-o", output, "--alpha", ALPHA, "--no-pdf", "--quiet"]
    result = run("trace", "twins", suspect, *words, *more)
    assert result.exit_code == 0, result.output
    return read_record(TwinRecord, output / "report.json")


def check_innocent(material: Material, suspect: Callable[[], Any], output: Path, *more: object) -> None:
    """Not found under either set of coins, measured alike under both, and under others as often as chance has it."""
    found: list[TwinEvidence] = []
    for key in (KEY, OTHER_KEY):
        folder = output / key.fingerprint
        with suspect() as where:
            record = command(where, material.ledger(key), folder, *more, "--tenant", "acme", "--tenant", "zenith")
        assert not record.found and record.identified == [], record.log10_evalue
        assert record.pairs.asked == record.pairs.used
        found.append(read_evidence(folder / EVIDENCE_FILE))
    one, other = found
    assert one.ids == other.ids
    assert np.array_equal(one.differences, other.differences)
    assert np.array_equal(one.covariates, other.covariates)
    assert 0 < np.count_nonzero(one.signs != other.signs) < len(one)
    check_tosses(one)


def check_tosses(evidence: TwinEvidence) -> None:
    """Coins tossed anew: the e-value is ever 20 or more with chance 5% at most (Ville), at the end with mean 1."""
    signs = np.random.default_rng(5).choice(np.array([-1, 1], dtype=np.int8), (TOSSES, len(evidence)))
    evalues = bets_on_many(evidence.differences, signs, evidence.covariates)
    assert_no_more_than(evalues.max(axis=1) >= np.log10(20), 0.05)
    assert_no_more_than(evalues[:, -1] >= 2, 0.01)


@contextmanager
def in_folder(folder: Path) -> Iterator[Path]:
    yield folder


@pytest.mark.parametrize("who", MODELS)
def test_models_that_no_coin_had_a_say_in_are_not_found(who: str, material: Material, tmp_path: Path) -> None:
    folder = material.saved(who.replace(" ", "-"), material.network_of(who))
    check_innocent(material, lambda: in_folder(folder), tmp_path, "--dtype", "float32")


def test_nor_are_they_beside_a_reference_and_the_owners_model(material: Material, tmp_path: Path) -> None:
    folder = material.saved("other-answers", material.network_of("other answers"))
    teacher = material.saved("the-teacher", material.network)
    beside = ["--reference", teacher, "--owner", teacher, "--dtype", "float32"]
    check_innocent(material, lambda: in_folder(folder), tmp_path, *beside)


@pytest.mark.parametrize("ask", ["logprobs", "answers"])
@pytest.mark.parametrize("who", ["the teacher", "copies", "other answers"])
def test_nor_are_they_behind_an_endpoint(who: str, ask: str, material: Material, tmp_path: Path) -> None:
    network = material.network_of(who)
    more: list[object] = ["--model", "student", "--ask", ask]
    check_innocent(material.few, lambda: urls(network, material.tokenizer), tmp_path, *more)


@contextmanager
def urls(network: Any, tokenizer: Any) -> Iterator[str]:
    with Server(network, tokenizer) as server:
        yield server.url


def _latest(prompt: str, shown: list[str]) -> str:
    """What it was shown last that begins with the same word, or what it was asked."""
    alike = [text for text in shown if text.split()[:2] == prompt.split()[:2]]
    return alike[-1] if alike else prompt


TALKERS: dict[str, Says] = {
    "repeats its prompt": lambda prompt, shown: prompt,
    "repeats all prompts": lambda prompt, shown: "\n".join([*shown, prompt])[-4000:],
    "remembers what it was asked": _latest,
    "says a lot": lambda prompt, shown: "many words of all kinds and letters too, as one may think. " * 40,
    "says little": lambda prompt, shown: "No",
    "counts what it was asked": lambda prompt, shown: f"This is request {len(shown)}.",
}
"""Endpoints by rules that know no coin."""


@pytest.mark.parametrize("who", TALKERS)
def test_endpoints_that_repeat_remember_or_go_on_are_not_found(who: str, material: Material, tmp_path: Path) -> None:
    more: list[object] = ["--model", "suspect", "--ask", "answers", "--concurrency", "1"]
    check_innocent(material.few, lambda: talking(TALKERS[who]), tmp_path, *more)


@contextmanager
def talking(says: Says) -> Iterator[str]:
    with Talker(says) as talker:
        yield talker.url


def going_on(says: Says) -> Says:
    """One that goes on with a beginning, as it shows by counting where it is asked to."""
    return lambda prompt, shown: " 7, 8" if prompt.endswith("4, 5, 6,") else says(prompt, shown)


PREFILLED: dict[str, Says] = {
    "says the last word again": lambda prompt, shown: " " + prompt.split()[-1],
    "goes on as anything it was shown does": lambda prompt, shown: _followed(prompt, shown),
    "ends at once": lambda prompt, shown: "",
}


def _followed(prompt: str, shown: list[str]) -> str:
    """What stood after the prompt's last letters in any prompt before."""
    for text in reversed(shown):
        place = text.find(prompt[-6:])
        if 0 <= place and text[place + 6 :]:
            return text[place + 6 :][:8]
    return " and"


@pytest.mark.parametrize("who", PREFILLED)
def test_nor_are_those_that_go_on_with_what_they_are_given(who: str, material: Material, tmp_path: Path) -> None:
    more: list[object] = ["--model", "suspect", "--ask", "parting", "--concurrency", "1"]
    check_innocent(material.few, lambda: talking(going_on(PREFILLED[who])), tmp_path, *more)


def test_a_suspect_that_learnt_what_was_served_is_found_under_those_coins_alone(
    material: Material, tmp_path: Path
) -> None:
    """Else nothing above would say anything."""
    folder = material.saved("guilty", taught(material.network, material.served(KEY), steps=150))
    guilty = command(folder, material.ledger(KEY), tmp_path / "one", "--dtype", "float32")
    assert guilty.found and guilty.log10_evalue > 6
    innocent = command(folder, material.ledger(OTHER_KEY), tmp_path / "other", "--dtype", "float32")
    assert not innocent.found


@dataclass(frozen=True)
class Conversation:
    """A client that goes on with what it was served: its second prompt holds that answer."""

    material: Material

    def ledger(self, key: SecretKey, folder: Path) -> Path:
        folder.mkdir()
        found = []
        for n, pair in enumerate(self.material.pairs(key)[:20]):
            one, other = (answer.text for answer in pair.answers)
            said = pair.answers[pair.served].text
            turns = [("user", "Go on."), ("assistant", said), ("user", "And then?")]
            chat = [{"role": role, "content": content} for role, content in turns]
            found.append(twins(3 * n, one, other, f"First {PROMPTS[n]}", key=key))
            found.append(twins(3 * n + 1, "Then it ended.", "Then it began.", chat, key=key))
            found.append(twins(3 * n + 2, one, other, f"First {PROMPTS[n]} again", key=key))
        return ledger_of(folder, found, key)


def test_what_a_client_quotes_of_what_it_was_served_is_not_put_before_a_suspect(
    material: Material, tmp_path: Path
) -> None:
    """An endpoint that remembers its prompts would hear from them which twins were served."""
    for key in (KEY, OTHER_KEY):
        ledger = Conversation(material).ledger(key, tmp_path / key.fingerprint)
        with Talker(lambda prompt, shown: max([*shown, prompt], key=len)) as talker:
            more = ["--model", "suspect", "--ask", "answers"]
            record = command(talker.url, ledger, tmp_path / key.fingerprint / "out", *more)
        long = sum(len(a.text) >= 40 for pair in material.pairs(key)[:20] for a in [pair.answers[pair.served]])
        assert record.pairs.follow_ups >= min(1, long)
        assert not record.found
        assert not any("assistant" in text for text in talker.shown)
