"""Which positions of a text count: each context once where its words may have shaped what is read, else a few times."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from detect.models.reading import (
    NO_SUBKEY,
    WINDOW,
    Positions,
    ReadingDocument,
    ReadingText,
    context_at,
    context_fingerprints,
    contexts_of,
    line_hash,
    positions,
    read_text,
    served_subkeys,
)
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.generate import SamplingUsed
from watermark.spec import WatermarkSpec

SPEC = WatermarkSpec(vocabulary_size=50, tokenizer="t", key_fingerprint="k", subkeys=4)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Words w0 .. w49 are ids 0 .. 49."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Encoder.load(tokenizer)


def text_of(*documents: tuple[list[int], int, int], marked: bool) -> ReadingText:
    made = [
        ReadingDocument(f"d{i}", np.array(ids, dtype=np.uint32), lead, key)
        for i, (ids, lead, key) in enumerate(documents)
    ]
    return ReadingText("text", "", made, marked)


def found(text: ReadingText, width: int = 2, most: int = 10**6, **more: Any) -> list[tuple[int, int]]:
    where = positions(text, width, most, **more)
    return list(zip(where.document.tolist(), where.position.tolist(), strict=True))


def contexts(text: ReadingText, where: Positions, width: int) -> list[tuple[int, ...]]:
    return [tuple(row) for row in context_at(text.documents, where, width).tolist()]


documents = st.lists(
    st.tuples(st.lists(st.integers(0, 3), max_size=20), st.integers(0, 5), st.integers(-1, 2)), min_size=1, max_size=5
)


@given(documents=documents, width=st.integers(1, 4))
def test_marked_text_gives_no_word_twice_and_none_that_was_used_before(
    documents: list[tuple[list[int], int, int]], width: int
) -> None:
    """Against the definition: read on and remember under which (context, sub-key) tokens were chosen."""
    documents = [(ids, min(lead, len(ids)), key) for ids, lead, key in documents]
    where = positions(text_of(*documents, marked=True), width, 10**6)
    apart = all(key >= 0 for _, _, key in documents)
    used: set[tuple[Any, ...]] = set()
    expected = []
    for number, (ids, lead, key) in enumerate(documents):
        read: set[tuple[int, ...]] = set()
        answered = set()
        for place in range(width, len(ids) + 1):
            context = tuple(ids[place - width : place])
            mark = (context, key if apart else None)
            if place >= lead:
                if context not in read and mark not in used:
                    expected.append((number, place))
                answered.add(mark)
            read.add(context)
        used |= answered
    assert list(zip(where.document.tolist(), where.position.tolist(), strict=True)) == expected


@given(documents=documents, width=st.integers(1, 3), prefixes=st.integers(1, 3))
def test_unmarked_text_gives_a_context_once_in_each_of_a_few_documents(
    documents: list[tuple[list[int], int, int]], width: int, prefixes: int
) -> None:
    text = text_of(*[(ids, min(lead, len(ids)), NO_SUBKEY) for ids, lead, _ in documents], marked=False)
    where = positions(text, width, 10**6, prefixes)
    times = Counter(contexts(text, where, width))
    readings = Counter(zip(where.document.tolist(), contexts(text, where, width), strict=True))
    assert max(times.values(), default=0) <= prefixes
    assert max(readings.values(), default=0) <= 1
    assert len(set(where.fingerprint.tolist())) == len(times)


def test_only_the_first_occurrence_in_a_document_counts_because_a_student_copies() -> None:
    assert found(text_of(([1, 2, 3, 1, 2, 4, 1, 2], 0, NO_SUBKEY), marked=False)) == [
        (0, 2), (0, 3), (0, 4), (0, 6), (0, 7),
    ]  # fmt: skip


def test_a_context_that_stood_in_the_prompt_does_not_count_in_the_answer() -> None:
    assert found(text_of(([1, 2, 9, 1, 2, 5], 3, 0), marked=True)) == [(0, 3), (0, 4), (0, 6)]


def test_a_context_whose_words_chose_a_token_is_spent_for_later_documents_even_where_it_did_not_count() -> None:
    first = ([1, 2, 9, 1, 2, 5], 3, 0)  # 1 2 stood in the prompt, so it does not count, but it chose the 5
    second = ([8, 1, 2, 7], 0, 0)
    assert (1, 3) not in found(text_of(first, second, marked=True))
    assert (1, 3) in found(text_of(([1, 2, 9, 4], 3, 0), second, marked=True))


def test_a_context_counts_under_each_known_subkey_but_once_where_one_is_unknown() -> None:
    ids = [1, 2, 3]
    assert found(text_of((ids, 0, 0), (ids, 0, 1), (ids, 0, 1), marked=True)) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert found(text_of((ids, 0, 0), (ids, 0, 1), (ids, 0, NO_SUBKEY), marked=True)) == [(0, 2), (0, 3)]
    assert found(text_of((ids, 0, NO_SUBKEY), (ids, 0, 1), marked=True)) == [(0, 2), (0, 3)]


def test_a_context_that_another_text_gave_is_left_out_under_every_subkey() -> None:
    first = text_of(([1, 2, 3], 0, NO_SUBKEY), marked=False)
    second = text_of(([1, 2, 3, 4], 0, 1), marked=True)
    assert found(second, taken=contexts_of(first, 2)) == [(0, 4)]


def test_reading_stops_at_the_most_contexts_but_known_ones_are_read_on() -> None:
    text = text_of(([1, 2, 3], 0, NO_SUBKEY), ([1, 2, 9, 9], 0, NO_SUBKEY), marked=False)
    assert found(text, most=1) == [(0, 2), (1, 2)]
    marked = text_of(([1, 2, 3], 0, 0), ([4, 5, 6, 7], 0, 0), marked=True)
    assert found(marked, most=3) == [(0, 2), (0, 3), (1, 2)]


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 4))
def test_fingerprints_are_equal_exactly_where_contexts_are(ids: list[int], width: int) -> None:
    prints = context_fingerprints(np.array(ids, dtype=np.uint32), width).tolist()
    plain = [tuple(ids[i : i + width]) for i in range(len(ids) - width + 1)]
    assert len(prints) == len(plain)
    assert len(set(prints)) == len(set(plain)) == len(set(zip(prints, plain, strict=True)))


def test_served_contexts_are_counted_by_document_and_in_answers_alone() -> None:
    served = text_of(([1, 2, 1, 2, 1], 0, 0), ([7, 7, 1, 2, 3], 4, 1), marked=True).documents
    counts = served_subkeys(served, 2)
    by_context = {tuple(pair): counts.get(int(context_fingerprints(np.array(pair, dtype=np.uint32), 2)[0]))
                  for pair in ([1, 2], [2, 1], [7, 7], [7, 1], [2, 3])}  # fmt: skip
    assert by_context == {(1, 2): {0: 1, 1: 1}, (2, 1): {0: 1}, (7, 7): None, (7, 1): None, (2, 3): {1: 1}}


def test_only_contexts_of_use_are_read_and_where_reading_ends_does_not_depend_on_which_those_are() -> None:
    text = text_of(([1, 2, 3, 4, 5, 6], 0, NO_SUBKEY), marked=False)
    prints = context_fingerprints(text.documents[0].sequence, 2).tolist()
    assert positions(text, 2, 4, among={prints[1], prints[3], prints[4]}).position.tolist() == [3, 5]
    assert positions(text, 2, 4, among=set(prints)).position.tolist() == [2, 3, 4, 5]


def test_served_subkeys_are_all_of_them_where_one_is_unknown() -> None:
    documents = text_of(
        ([1, 2, 3], 0, 0), ([1, 2, 4], 0, 0), ([1, 2, 4], 0, 3), ([2, 4, 9], 0, -1), marked=True
    ).documents
    prints = {pair: int(context_fingerprints(np.array(pair, dtype=np.uint32), 2)[0]) for pair in ((1, 2), (2, 4))}
    served = served_subkeys(documents, 2)
    assert served[prints[1, 2]] == {0: 2, 3: 1}
    assert served[prints[2, 4]] == {NO_SUBKEY: 3}


# --- files -----------------------------------------------------------------------------------------------


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_long_documents_are_cut_into_windows_that_lose_and_double_nothing(tmp_path: Path, encoder: Encoder) -> None:
    ids = np.random.default_rng(0).integers(0, 50, 2 * WINDOW + 300).tolist()
    prompt = [5] * (WINDOW + 5)
    line = {"token_ids": ids, "prompt_token_ids": prompt, "spec_id": SPEC.spec_id, "subkey": 3}
    text = read_text(write(tmp_path / "long.jsonl", line), SPEC, encoder)
    pieces = text.documents
    assert [len(piece.sequence) for piece in pieces] == [WINDOW, WINDOW, 812]
    assert [piece.lead for piece in pieces] == [WINDOW // 2, 0, 0]
    assert [piece.subkey for piece in pieces] == [3, 3, 3]
    assert [piece.name[-7:] for piece in pieces] == ["piece 1", "piece 2", "piece 3"]
    np.testing.assert_array_equal(np.concatenate([piece.sequence[piece.lead :] for piece in pieces]), ids)
    assert max(Counter(contexts(text, positions(text, 2, 10**6), 2)).values()) == 1


def test_records_of_generate_are_marked_text_and_any_other_is_not(tmp_path: Path, encoder: Encoder) -> None:
    mine = {"text": "w1 w2 w3", "spec_id": SPEC.spec_id, "subkey": 2, "tenant": "acme"}
    marked = read_text(write(tmp_path / "a.jsonl", mine), SPEC, encoder)
    assert marked.marked and marked.documents[0].subkey == 2
    assert marked.documents[0].sequence.tolist() == [1, 2, 3]
    foreign = read_text(write(tmp_path / "b.jsonl", mine | {"spec_id": "dt1-other", "subkey": 9}), SPEC, encoder)
    assert not foreign.marked and foreign.documents[0].subkey == NO_SUBKEY
    plain = tmp_path / "c.txt"
    plain.write_text("w4 w5 w6")
    assert read_text(str(plain), SPEC, encoder).documents[0].sequence.tolist() == [4, 5, 6]
    both = write(tmp_path / "d.jsonl", mine, mine | {"tenant": "zenith", "text": "w7 w8 w9"})
    assert len(read_text(both, SPEC, encoder, tenant="zenith").documents) == 1


def test_chats_tables_and_arrays_are_read_as_a_scan_reads_them(tmp_path: Path, encoder: Encoder) -> None:
    turns = [
        {"role": "user", "content": "w9 w9"},
        {"role": "assistant", "content": "w1 w2 w3", "reasoning": "w3 w4 w5"},
    ]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": turns}], indent=1))
    (tmp_path / "b.csv").write_text('prompt,response\nw9,"w1 w2 w3"\n')
    (tmp_path / "c.json").write_text(json.dumps([{"text": "w1 w2 w3", "prompt": "w9"}]))
    chat, table, array = (
        [document.sequence.tolist() for document in read_text(str(path), SPEC, encoder).documents]
        for path in sorted(tmp_path.iterdir())
    )
    assert sorted(chat) == [[1, 2, 3], [3, 4, 5]]
    assert table == array == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": "w1 w2 w3", "spec_id": SPEC.spec_id}, {"text": "w4 w5 w6"}], "files of their own"),
        ([{"text": "w1"}], "holds no text to read"),
        ([{"text": "w1 w2"}, {"prompt": "w1"}], "line 2 has neither a 'text' nor a 'token_ids'"),
        ([{"token_ids": [1, 2, 50]}], "line 1 has a token id outside the spec's vocabulary of 50"),
        ([{"token_ids": [1, -2, 3]}], "outside the spec's vocabulary"),
        ([{"text": "w1 w2 w3", "spec_id": SPEC.spec_id, "subkey": 4}], "sub-key 4, but the spec has 4"),
        ([{"text": 3}], "has no field that looks like a document; call the field with the text 'text'"),
        ([{"text": "w1 w2"}, {"text": 3}], "line 2: .*mend or remove the line"),
    ],
)
def test_broken_files_are_refused_with_their_line(
    lines: list[object], message: str, tmp_path: Path, encoder: Encoder
) -> None:
    with pytest.raises(DyetraceError, match=message) as error:
        read_text(write(tmp_path / "x.jsonl", *lines), SPEC, encoder)
    assert "\n" not in str(error.value)


# --- what was shown before ---------------------------------------------------------------------------------


def file_of(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_a_context_whose_text_stands_in_the_prompt_does_not_count_though_its_ids_were_cut(
    encoder: Encoder, tmp_path: Path
) -> None:
    """The prompt is longer than what is kept of its ids, and another record has it as text alone."""
    long = [1, 2, 3, *[9] * WINDOW]
    answer = {"token_ids": [1, 2, 3, 4], "spec_id": SPEC.spec_id, "subkey": 0}
    by_ids = read_text(
        file_of(tmp_path / "a.jsonl", {**answer, "prompt": "p", "prompt_token_ids": long}), SPEC, encoder
    )
    by_text = read_text(file_of(tmp_path / "b.jsonl", {**answer, "prompt": "say w1 w2 w3 again"}), SPEC, encoder)
    for text in (by_ids, by_text):
        where = positions(text, 2, 99)
        assert [1, 2] not in context_at(text.documents, where, 2).tolist()
        assert [2, 3] not in context_at(text.documents, where, 2).tolist()
        assert [3, 4] in context_at(text.documents, where, 2).tolist()


def test_the_end_of_a_prompt_counts_unless_it_stood_there_before(encoder: Encoder, tmp_path: Path) -> None:
    answer = {"token_ids": [5, 6], "spec_id": SPEC.spec_id, "subkey": 0}
    once = file_of(tmp_path / "a.jsonl", {**answer, "prompt_token_ids": [7, 1, 2]})
    twice = file_of(tmp_path / "b.jsonl", {**answer, "prompt_token_ids": [1, 2, 7, 1, 2]})
    texts = [read_text(name, SPEC, encoder) for name in (once, twice)]
    assert [[1, 2] in context_at(t.documents, positions(t, 2, 99), 2).tolist() for t in texts] == [True, False]


def test_answers_that_stand_in_another_order_than_they_were_served_are_refused(
    encoder: Encoder, tmp_path: Path
) -> None:
    """A file may be sorted by length, which the key decided. Numbers are numbers, not words."""
    records = [
        {"token_ids": [i % 40] * 3, "id": f"{i}.{i % 2}", "spec_id": SPEC.spec_id, "subkey": 0} for i in range(8, 13)
    ]
    one = read_text(file_of(tmp_path / "a.jsonl", *records), SPEC, encoder)
    assert [int(d.sequence[0]) for d in one.documents] == [8, 9, 10, 11, 12]
    with pytest.raises(DyetraceError, match="in another order than their ids number them"):
        read_text(file_of(tmp_path / "b.jsonl", *reversed(records)), SPEC, encoder)


def test_numbers_that_stand_twice_are_no_order(encoder: Encoder, tmp_path: Path) -> None:
    """Two files of answers, one after the other, each numbered from 0."""
    records = [
        {"token_ids": [i] * 3, "id": n, "spec_id": SPEC.spec_id, "subkey": 0}
        for i, n in ((4, "0"), (5, "1"), (6, "0"), (7, "1"))
    ]
    read = read_text(file_of(tmp_path / "a.jsonl", *records), SPEC, encoder)
    assert [int(d.sequence[0]) for d in read.documents] == [4, 5, 6, 7]


def test_a_list_of_hashes_in_another_order_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    records = [{"token_ids": [i, i, i], "id": f"a{i}", "spec_id": SPEC.spec_id, "subkey": 0} for i in (3, 1, 2)]
    name = file_of(tmp_path / "a.jsonl", *records)
    hashes = [line_hash(SimpleNamespace(**{"prompt_token_ids": None, "tenant": None, **record})) for record in records]
    same, other = ({value: place for place, value in enumerate(some)} for some in (hashes, hashes[::-1]))
    assert [int(d.sequence[0]) for d in read_text(name, SPEC, encoder, order=same).documents] == [3, 1, 2]
    with pytest.raises(DyetraceError, match="in another order than the list of their hashes"):
        read_text(name, SPEC, encoder, order=other)


def test_a_context_across_a_cut_counts_nowhere_later(encoder: Encoder, tmp_path: Path) -> None:
    """It chose a token of the long answer, so its words are no longer fresh in the next one."""
    ids = [(i * 7) % 43 for i in range(WINDOW + 10)]
    across = ids[WINDOW - 1 : WINDOW + 1]
    again = {"token_ids": [*across, 44, 45], "spec_id": SPEC.spec_id, "subkey": 0}
    text = read_text(
        file_of(tmp_path / "a.jsonl", {"token_ids": ids, "spec_id": SPEC.spec_id, "subkey": 0}, again), SPEC, encoder
    )
    where = positions(text, 2, 10**6)
    last = [
        c for d, c in zip(where.document.tolist(), context_at(text.documents, where, 2).tolist(), strict=True) if d == 2
    ]
    assert across not in last and [across[1], 44] in last


def test_a_context_that_is_told_apart_counts_once_for_each_that_it_is_told_apart_by(
    encoder: Encoder, tmp_path: Path
) -> None:
    """As where an account's own key chose for that account alone; across a cut, too."""
    ids = [(i * 7) % 43 for i in range(WINDOW + 10)]
    across = [*ids[WINDOW - 1 : WINDOW + 1], 44]
    fields = {"spec_id": SPEC.spec_id, "subkey": 0}
    lines = [{"token_ids": ids, "tenant": "a"}, {"token_ids": across, "tenant": "a"}]
    lines.append({"token_ids": across, "tenant": "b"})
    text = read_text(file_of(tmp_path / "a.jsonl", *({**fields, **line} for line in lines)), SPEC, encoder)

    def by_account(document: ReadingDocument, sequence: Any) -> Any:
        return np.full(len(sequence) - 1, ord(document.tenant or "-"), dtype=np.uint64)

    def counted(**more: Any) -> list[tuple[int, int]]:
        return [one for one in found(text, **more) if one[0] > 1]

    assert counted() == [(2, 3)]
    assert counted(apart=by_account) == [(2, 3), (3, 2), (3, 3)]


def test_a_long_answers_first_piece_is_told_its_prompt_as_a_short_answer_is(encoder: Encoder, tmp_path: Path) -> None:
    """A model with another tokenizer reads the prompt as text: how long an answer is must change nothing of it."""
    answer = {"prompt": "w1 w2", "prompt_token_ids": [1, 2], "spec_id": SPEC.spec_id, "subkey": 0}
    answer |= {"tenant": "acme", "sampling": {"top_p": 0.9}}
    lines = [{**answer, "token_ids": [i % 50 for i in range(length)]} for length in (20, 2 * WINDOW)]
    short, first, second, *_ = read_text(file_of(tmp_path / "a.jsonl", *lines), SPEC, encoder).documents
    assert (short.prompt, short.lead) == (first.prompt, first.lead) == ("w1 w2", 2)
    assert short.barred == first.barred and second.prompt is None
    assert {one.tenant for one in (short, first, second)} == {"acme"}
    assert {one.sampling for one in (short, first, second)} == {SamplingUsed(top_p=0.9)}


def test_ids_that_spell_other_text_than_the_one_beside_them_are_not_read(encoder: Encoder, tmp_path: Path) -> None:
    own = {"text": "w3 w4 w5 w6", "token_ids": [3, 4, 5, 6], "prompt": "w1", "prompt_token_ids": [9, 1]}
    other = {"text": "w3 w4 w5 w6", "token_ids": [8, 8, 9], "prompt": "w1", "prompt_token_ids": [9, 2]}
    beyond = {"text": "w3 w4 w5 w6", "token_ids": [5000]}

    def read(*lines: dict[str, Any]) -> tuple[list[list[int]], int | None]:
        text = read_text(file_of(tmp_path / "a.jsonl", *lines), SPEC, encoder)
        return [one.sequence.tolist() for one in text.documents], text.unlike

    by_ids, by_text = [9, 1, 3, 4, 5, 6], [3, 4, 5, 6]
    assert read(own, own) == ([by_ids, by_ids], 0)
    assert read(own, other, beyond) == ([by_ids, by_text, by_text], 2)
    assert read({"text": "w3 w4 w5"}, {"token_ids": [8, 8, 9]}) == ([[3, 4, 5], [8, 8, 9]], None)
    assert read({**other, "text": " "})[0] == [[9, 2, 8, 8, 9]]  # there is no text to hold them against
    with pytest.raises(DyetraceError, match="its ids come from another tokenizer"):
        read({"token_ids": [5000]})


def test_of_marked_answers_all_are_read_in_one_form_as_the_key_had_a_say_in_each(
    encoder: Encoder, tmp_path: Path
) -> None:
    marked = {"spec_id": SPEC.spec_id, "text": "w3 w4 w5", "prompt": "w1"}
    apart = {**marked, "token_ids": [3, 4, 5, 7], "prompt_token_ids": [9, 1]}  # as it ended with a stop word
    text = read_text(file_of(tmp_path / "a.jsonl", apart, apart), SPEC, encoder)
    assert [one.sequence.tolist() for one in text.documents] == [[9, 1, 3, 4, 5, 7]] * 2 and text.unlike == 0
    text = read_text(file_of(tmp_path / "a.jsonl", apart, {**marked, "token_ids": [8, 8]}), SPEC, encoder)
    assert [one.sequence.tolist() for one in text.documents] == [[9, 1, 3, 4, 5], [3, 4, 5]] and text.unlike == 1


def test_a_field_named_sampling_of_other_text_may_be_anything(encoder: Encoder, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.jsonl", {"text": "w1 w2 w3", "sampling": "greedy"})
    assert read_text(path, SPEC, encoder).documents[0].sampling is None
    marked = {"token_ids": [1, 2, 3], "spec_id": SPEC.spec_id, "sampling": "greedy"}
    with pytest.raises(DyetraceError, match="line 1: field 'sampling'"):
        read_text(file_of(tmp_path / "b.jsonl", marked), SPEC, encoder)
