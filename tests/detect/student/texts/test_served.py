"""Counts from a ledger are those of the answers that it counted, and they come from the file that the report names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from detect.models.reading import ReadingDocument, context_fingerprints
from detect.student.texts.served import crowding, open_served, read_answers
from detect.student.verdict.weights import Served
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.keys import KeyRing, SecretKey, TenantKey
from watermark.ledger import Ledger, answer_contexts
from watermark.ledger_file import is_ledger, merge_files, new_file, new_header
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
RING = KeyRing.from_master(MASTER, tenants=("acme", "zenith"))
ACME = TenantKey.from_master(MASTER, "acme").ring()
SPEC = WatermarkSpec(vocabulary_size=50, tokenizer="t", key_fingerprint=MASTER.fingerprint, global_share=0.5)
WIDTH = SPEC.context_width


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Encoder.load(tokenizer)


def answers(count: int = 32) -> list[dict[str, Any]]:
    """Answers of a few words, so that contexts come up again; acme's and zenith's in turn."""
    rng = np.random.default_rng(3)
    return [
        {
            "prompt_token_ids": rng.integers(0, 12, 5).tolist(),
            "token_ids": rng.integers(0, 12, 30).tolist(),
            "spec_id": SPEC.spec_id,
            "subkey": int(rng.integers(0, SPEC.subkeys)),
            "tenant": ("acme", "zenith")[number % 2],
        }
        for number in range(count)
    ]


def write_answers(path: Path, served: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(answer) + "\n" for answer in served))
    return str(path)


def add(ledger: Ledger, served: Sequence[dict[str, Any]]) -> None:
    for answer in served:
        # One token more, as an answer's last context counts where answers are read.
        contexts = answer_contexts(answer["prompt_token_ids"], [*answer["token_ids"], 0], WIDTH)
        ledger.add(answer["tenant"], answer["subkey"], contexts)


def write_ledger(path: Path, served: Sequence[dict[str, Any]], spec: WatermarkSpec = SPEC, width: int = 0) -> str:
    """A ledger of answers; with a ``width``, one of far fewer counters than anybody would make."""
    if width:
        header = new_header(spec.spec_id, spec.key_fingerprint, 1)
        with new_file(path, msgspec.structs.replace(header, width=width)):
            pass
    else:
        Ledger.create(path, spec, RING, megabytes=1).close()
    with Ledger.open(path, spec, RING, write=True) as ledger:
        add(ledger, served)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The same answers as JSONL and as a ledger, whose name says nothing."""
    folder = tmp_path_factory.mktemp("served")
    return write_answers(folder / "served.jsonl", answers()), write_ledger(folder / "ledger.jsonl", answers())


def looked_up(
    source: str, encoder: Encoder, sequences: Sequence[Any], ring: KeyRing = RING, tenant: str | None = None
) -> Served:
    with open_served(source, SPEC, ring, encoder, tenant) as served:
        assert served is not None
        return served.of([np.array(sequence, dtype=np.uint32) for sequence in sequences])


sequences = st.lists(st.lists(st.integers(0, 14), max_size=40), max_size=5)


@given(sequences, st.sampled_from([None, "acme", "zenith"]))
def test_a_ledger_gives_the_counts_of_its_answers_for_the_contexts_that_are_read(
    files: tuple[str, str], encoder: Encoder, sequences: list[list[int]], tenant: str | None
) -> None:
    exact = looked_up(files[0], encoder, sequences, tenant=tenant)
    found = looked_up(files[1], encoder, sequences, tenant=tenant)
    read = {
        value
        for sequence in sequences
        for value in context_fingerprints(np.array(sequence, dtype=np.uint32), WIDTH).tolist()
    }
    assert found == {value: counts for value, counts in exact.items() if value in read}


def test_some_contexts_are_served_and_some_are_not(files: tuple[str, str], encoder: Encoder) -> None:
    found = looked_up(files[1], encoder, [range(14), answers()[0]["token_ids"]])
    assert len(found) >= 29  # all of the answer's own
    assert not looked_up(files[1], encoder, [range(20, 40)])
    assert looked_up(files[1], encoder, [range(14)]) != looked_up(files[1], encoder, [range(14)], tenant="acme")


def test_a_tenants_key_looks_up_that_tenants_counts(files: tuple[str, str], encoder: Encoder) -> None:
    read = [answers()[0]["token_ids"], range(14)]
    mine = looked_up(files[1], encoder, read, ACME)
    assert mine and mine == looked_up(files[1], encoder, read, RING, "acme")


def test_of_a_document_only_the_contexts_of_its_own_tokens_are_looked_up(
    files: tuple[str, str], encoder: Encoder
) -> None:
    """The prompt before them is not what the suspect is asked about."""
    ids = answers()[0]["token_ids"]
    document = ReadingDocument("one", np.array(ids, dtype=np.uint32), 20)
    with open_served(files[1], SPEC, RING, encoder) as served:
        assert served is not None
        found = served.in_documents([document], WIDTH)
    own = context_fingerprints(np.array(ids[20 - WIDTH :], dtype=np.uint32), WIDTH)
    assert found.keys() == set(own.tolist())


def test_the_record_names_the_file_that_was_read(files: tuple[str, str], encoder: Encoder) -> None:
    for name in files:
        with open_served(name, SPEC, RING, encoder) as served:
            assert served is not None
        data = Path(name).read_bytes()
        assert (served.file.name, served.file.bytes) == (name, len(data))
        assert served.file.sha256 == hashlib.sha256(data).hexdigest()
    with open_served(None, SPEC, RING, encoder) as nothing:
        assert nothing is None


def test_a_ledger_is_known_by_how_it_begins(files: tuple[str, str], tmp_path: Path) -> None:
    assert [is_ledger(Path(name)) for name in (*files, str(tmp_path / "none"))] == [False, True, False]
    assert not is_ledger(tmp_path)


def test_a_ledger_that_a_server_writes_to_is_refused_until_it_is_closed(tmp_path: Path, encoder: Encoder) -> None:
    source = write_ledger(tmp_path / "live.ledger", answers(2))
    with (
        Ledger.open(Path(source), SPEC, RING, write=True),
        pytest.raises(DyetraceError, match=r"open for writing.*copy.*dyetrace ledger merge"),
        open_served(source, SPEC, RING, encoder),
    ):
        pass
    assert looked_up(source, encoder, [answers()[0]["token_ids"]])


def test_what_merge_makes_of_live_ledgers_is_read(tmp_path: Path, encoder: Encoder) -> None:
    one, two = tmp_path / "one.ledger", tmp_path / "two.ledger"
    with Ledger.create(one, SPEC, RING, megabytes=1) as first, Ledger.create(two, SPEC, RING, megabytes=1) as second:
        add(first, answers()[:20])
        add(second, answers()[20:])
        first.flush()
        second.flush()
        merge_files([one, two], tmp_path / "all.ledger")
        read = [range(14), answers()[0]["token_ids"]]
        whole = write_ledger(tmp_path / "whole.ledger", answers())
        assert looked_up(str(tmp_path / "all.ledger"), encoder, read) == looked_up(whole, encoder, read)


def test_a_trace_keeps_no_server_from_its_ledger_but_notices_what_it_writes(tmp_path: Path, encoder: Encoder) -> None:
    source = write_ledger(tmp_path / "served.ledger", answers(2))
    with (
        pytest.raises(DyetraceError, match="was changed while it was read"),
        open_served(source, SPEC, RING, encoder),
        Ledger.open(Path(source), SPEC, RING, write=True) as server,
    ):
        add(server, answers(3)[2:])


@pytest.mark.parametrize(
    ("spec", "ring", "tenant", "message"),
    [
        (msgspec.structs.replace(SPEC, epoch=1), RING, None, "is of spec .* each spec has its own ledger"),
        (SPEC, ACME, "zenith", "counts of tenant 'zenith' to that tenant's key only.*--tenant"),
        (SPEC, KeyRing.from_master(MASTER), "acme", "counts of tenant 'acme' to that tenant's key only.*--tenant"),
        (SPEC, KeyRing.from_master(SecretKey(bytes(32))), None, "wrong key"),
    ],
)
def test_a_ledger_that_tells_these_keys_nothing_is_one_line(
    files: tuple[str, str], encoder: Encoder, spec: WatermarkSpec, ring: KeyRing, tenant: str | None, message: str
) -> None:
    with (
        pytest.raises(DyetraceError, match=message) as error,
        open_served(files[1], spec, ring, encoder, tenant),
    ):
        pass
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_are_one_line(tmp_path: Path, encoder: Encoder) -> None:
    for missing in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DyetraceError, match="cannot read"), open_served(str(missing), SPEC, RING, encoder):
            pass


def test_a_crowded_ledger_is_called_crowded_and_its_counts_stand(tmp_path: Path, encoder: Encoder) -> None:
    source = write_ledger(tmp_path / "crowded.ledger", answers(), width=32)
    told = crowding(source)
    assert told is not None and "nearly all count as served" in told and "the trace is valid" in told
    unserved = looked_up(source, encoder, [range(20, 40)])
    assert len(unserved) > 15  # nothing was subtracted
    assert crowding(write_ledger(tmp_path / "roomy.ledger", answers())) is None
    assert crowding(write_answers(tmp_path / "a.jsonl", answers())) is None
    assert crowding(None) is None


def test_broken_answers_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(
        msgspec.json.encode(Answer(id="0", prompt="a", text="", prompt_token_ids=[900], token_ids=[1]))
        + b"\n\n{broken\n"
    )
    with pytest.raises(DyetraceError, match="line 3"):
        list(read_answers(path))
    with pytest.raises(DyetraceError, match="cannot read served answers"):
        list(read_answers(tmp_path / "missing"))


def test_served_answers_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    served = [Answer(id=str(i), prompt="a", text="", prompt_token_ids=[900], token_ids=[1, 2, i]) for i in range(3)]
    path.write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in served))
    assert list(read_answers(path)) == served
