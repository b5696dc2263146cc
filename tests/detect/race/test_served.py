"""Which places of served answers count, whose they are, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.keyed.owners import owned_contexts
from detect.models.reading import context_at
from detect.race.chances import Chances
from detect.race.job import RaceJob
from detect.race.served import ServedText, check_readable, sampling_of, served_text, settings_in_words
from tests.tiny_models import VOCABULARY, tokenizer
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.generate import SamplingUsed
from watermark.keys import ForeignKey, KeyRing, SecretKey
from watermark.ledger import Ledger
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint
from watermark.registry import make_scheme
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
ACCOUNTS = ("acme", "bolt")
TOKENS = load_tokenizer(tokenizer())


def spec_of(**more: Any) -> WatermarkSpec:
    fields: dict[str, Any] = {"context_width": 1, "subkeys": 2, "global_share": 0.5}
    return WatermarkSpec(
        vocabulary_size=VOCABULARY,
        tokenizer=tokenizer_fingerprint(TOKENS),
        **fields | {"key_fingerprint": KEY.fingerprint} | more,
    )


SPEC = spec_of()


def ring_of(*accounts: str) -> KeyRing:
    return KeyRing.from_master(KEY, 0, accounts)


def line(ids: Sequence[int], tenant: str | None = "acme", spec: WatermarkSpec = SPEC, **more: Any) -> dict[str, Any]:
    fields = {"text": "", "token_ids": list(ids), "spec_id": spec.spec_id, "subkey": 0, "tenant": tenant}
    return {name: value for name, value in (fields | more).items() if value is not None}


def written(folder: Path, *lines: dict[str, Any]) -> str:
    path = folder / "served.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(path)


def read(path: str, spec: WatermarkSpec = SPEC, accounts: tuple[str, ...] = ACCOUNTS, **more: Any) -> ServedText:
    job = RaceJob(suspect="student", read=path, owner_model=Path("owner"), **more)
    return served_text(job, spec, ring_of(*accounts), TOKENS)


def places(served: ServedText) -> list[tuple[str, int]]:
    return [(served.document(row).name[-6:], int(served.where.position[row])) for row in range(len(served))]


def of_global(*ids: int) -> list[bool]:
    contexts = np.array(ids, dtype=np.uint32)[:, None]
    return owned_contexts(SPEC, ring_of().selector, contexts)[True].tolist()


SHARED = [token for token in range(10, 60) if of_global(token) == [True]][:6]
OWN = [token for token in range(10, 60) if of_global(token) == [False]][:6]


def test_an_accounts_own_contexts_count_for_each_account_and_the_global_keys_once(tmp_path: Path) -> None:
    answer = [SHARED[0], OWN[0], SHARED[1], OWN[1]]
    path = written(tmp_path, line(answer, "acme"), line(answer, "bolt"), line(answer, "acme"))
    assert places(read(path)) == [(f"line {n}", p) for n, p in ((1, 1), (1, 2), (1, 3), (1, 4), (2, 2), (2, 4))]


def test_an_answer_of_an_unknown_account_may_have_used_any_accounts_context(tmp_path: Path) -> None:
    answer = [SHARED[0], OWN[0]]
    path = written(tmp_path, line(answer, None), line(answer, "acme"), line([*answer, OWN[1]], "bolt"))
    assert places(read(path)) == [("line 1", 1), ("line 1", 2), ("line 3", 3)]


def test_one_accounts_answers_are_read_alone_and_what_others_have_used_is_not_fresh(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        line([SHARED[0], OWN[0], SHARED[1]], "acme"),
        line([SHARED[0], OWN[0], SHARED[2]], "bolt"),
    )
    served = read(path, read_tenant="bolt")
    assert places(served) == [("line 2", 2), ("line 2", 3)]
    assert served.answers == 1 and served.reading.documents == 1 and served.names == (f"{path}, line 2",)
    assert served.accounts == ("bolt",) and served.account.tolist() == [0]


def test_places_of_keys_that_are_not_held_are_known_as_such(tmp_path: Path) -> None:
    path = written(tmp_path, line([SHARED[0], OWN[0]], "acme"), line([SHARED[1], OWN[1]], "bolt"))
    served = read(path, accounts=("bolt",))
    assert served.held.tolist() == [True, False, True, True]
    assert served.accounts == ("bolt",) and served.account.tolist() == [-1, 0]
    rows = np.flatnonzero(served.held)
    chances = Chances(np.zeros((3, 1), dtype=np.int32), np.ones((3, 1)))
    found = served.evidence("greedy", rows, chances, np.array([0, -1, -1]), np.zeros((3, 0)), np.array([1, 1, 2]))
    counts = served.counts(cuts=5, evidence=found)
    assert (counts.answers, counts.fresh, counts.unheld, counts.cuts, counts.asked, counts.silent) == (2, 4, 1, 5, 3, 2)
    assert found.documents.tolist() == [0, 1, 1] and found.positions.tolist() == [1, 1, 2]
    assert (found.contexts == context_at(served.text.documents, served.where, 1)[rows]).all()


def test_so_many_places_are_the_first_ones(tmp_path: Path) -> None:
    path = written(tmp_path, line(SHARED[:3]), line(SHARED[3:]))
    assert places(read(path, contexts=4)) == [("line 1", 1), ("line 1", 2), ("line 1", 3), ("line 2", 1)]


@settings(max_examples=40)
@given(st.data())
def test_what_is_served_later_changes_no_earlier_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    tokens = st.sampled_from([*SHARED[:4], *OWN[:4]])
    answer = st.tuples(st.lists(tokens, min_size=1, max_size=8), st.sampled_from(ACCOUNTS), st.integers(0, 1))
    answers = data.draw(st.lists(answer, min_size=1, max_size=4))
    number = data.draw(st.integers(0, len(answers) - 1))
    ids, tenant, subkey = answers[number]
    cut = data.draw(st.integers(1, len(ids)))
    other = [*answers[:number], (ids[:cut] + data.draw(st.lists(tokens, max_size=4)), tenant, subkey)]
    other += data.draw(st.lists(answer, max_size=2))

    def early(given: list[tuple[list[int], str, int]]) -> list[tuple[str, int]]:
        first = line([200, 201])  # so that there is something to read
        served = read(written(folder, first, *(line(ids, whose, subkey=key) for ids, whose, key in given)))
        return [one for one in places(served) if one <= (f"line {number + 2}", cut)]

    assert early(answers) == early(other)


def test_settings_on_record_hold_and_others_are_given_or_assumed(tmp_path: Path) -> None:
    hot = {"temperature": 0.8, "top_p": 0.95}
    path = written(tmp_path, line([1, 2], sampling=hot), line([3, 4], sampling=hot), line([5, 6], sampling={}))
    job = RaceJob(suspect="s", read=path, owner_model=Path("o"))
    used, which, seen = sampling_of(job, read(path))
    assert used == [SamplingUsed(temperature=0.8, top_p=0.95), SamplingUsed()]
    assert which.tolist() == [0] * 4 + [1] * 2
    assert seen.source == "recorded" and seen.settings == ["temperature 0.8, top-p 0.95", "temperature 1"]
    with pytest.raises(DyetraceError, match="hold the settings"):
        sampling_of(RaceJob(suspect="s", read=path, owner_model=Path("o"), top_k=5), read(path))

    path = written(tmp_path, line([1, 2], sampling=hot), line([3, 4]))
    used, which, seen = sampling_of(RaceJob(suspect="s", read=path, owner_model=Path("o")), read(path))
    assert seen.source == "assumed" and seen.settings == ["temperature 0.8, top-p 0.95", "temperature 1"]
    given = RaceJob(suspect="s", read=path, owner_model=Path("o"), temperature=0.5, top_k=40, min_p=0.1)
    used, which, seen = sampling_of(given, read(path))
    assert seen.source == "given" and used[1] == SamplingUsed(temperature=0.5, top_k=40, min_p=0.1)
    assert settings_in_words(used[1]) == "temperature 0.5, top-k 40, min-p 0.1"


def test_settings_out_of_range_are_named_with_their_line(tmp_path: Path) -> None:
    path = written(tmp_path, line([1, 2]), line([3, 4], sampling={"top_p": 2}))
    with pytest.raises(DyetraceError, match=r"line 2.*top_p must lie in"):
        read(path)


def test_what_holds_no_served_answers_is_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "served.ledger"
    Ledger.create(ledger, SPEC, ring_of(*ACCOUNTS), megabytes=1).close()
    with pytest.raises(DyetraceError, match="holds no text"):
        read(str(ledger))
    with pytest.raises(DyetraceError, match="no answers under this spec"):
        read(written(tmp_path, line([1, 2, 3], spec_id="dt1-other")))
    with pytest.raises(DyetraceError, match="mixes"):
        read(written(tmp_path, line([1, 2, 3]), line([1, 2, 3], spec_id="dt1-other")))
    with pytest.raises(DyetraceError, match="no answers that were served to 'carol'"):
        read(written(tmp_path, line([1, 2, 3])), read_tenant="carol")
    with pytest.raises(DyetraceError, match="that a key at hand marks"):
        read(written(tmp_path, line([OWN[0], OWN[1]], "bolt")), accounts=("acme",))
    with pytest.raises(DyetraceError, match="another order"):
        read(written(tmp_path, line([1, 2, 3], id="2"), line([4, 5, 6], id="1")))
    with pytest.raises(DyetraceError, match="cannot read"):
        read(str(tmp_path / "nothing.jsonl"))


def test_an_incomplete_file_is_refused(tmp_path: Path) -> None:
    from detect.student.texts.complete import hash_lines

    full = [
        line([1, 2, 3], id="1", prompt="", prompt_token_ids=[]),
        line([4, 5], id="2", prompt="", prompt_token_ids=[]),
    ]
    hashes = tmp_path / "hashes.txt"
    hashes.write_text("\n".join(hash_lines(Path(written(tmp_path, *full)))))
    served = read(written(tmp_path, *full), complete=hashes, taken="all")
    assert served.reading.complete == f"{hashes}: 2 hashes of served answers" and served.reading.taken == "all"
    with pytest.raises(DyetraceError, match="lacks 1 of the 2"):
        read(written(tmp_path, full[0]), complete=hashes)


def test_only_marks_of_our_own_schemes_can_be_read_so() -> None:
    job = RaceJob(suspect="s", read="r", owner_model=Path("o"))
    for scheme in ("gumbel", "tournament", "green_list"):
        check_readable(spec_of(scheme=scheme), ring_of(*ACCOUNTS), TOKENS, job)
    sglang = make_scheme("sglang", {})
    assert is_format(sglang)
    foreign = ForeignKey("sglang", sglang.draw_key(bytes(32)), bytes(16))
    spec = spec_of(
        scheme="sglang",
        context_width=sglang.context_width,
        subkeys=1,
        global_share=1.0,
        key_fingerprint=foreign.fingerprint,
    )
    with pytest.raises(DyetraceError, match="without the owner's model"):
        check_readable(spec, KeyRing.from_foreign(foreign), TOKENS, job)
