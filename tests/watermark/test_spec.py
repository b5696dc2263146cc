"""Specs: one canonical form, one identity, and one line for everything that is wrong with one."""

import errno
import hashlib
import itertools
import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import DyetraceError
from watermark.spec import (
    WatermarkSpec,
    check_key,
    check_tokenizer,
    load_spec,
    parse_spec,
    write_spec,
)

REQUIRED: dict[str, Any] = {"vocabulary_size": 49_152, "tokenizer": "tk-0123", "key_fingerprint": "49e5696b"}
SPEC = WatermarkSpec(**REQUIRED)

schemes: st.SearchStrategy[Any] = st.one_of(
    st.just(("gumbel", {})),
    st.tuples(st.just("tournament"), st.fixed_dictionaries({}, optional={"depth": st.integers(1, 32)})),
    st.tuples(
        st.just("green_list"),
        st.fixed_dictionaries({}, optional={"gamma": st.floats(0.01, 0.99), "delta": st.floats(0.01, 20)}),
    ),
)


@st.composite
def specs(draw):
    scheme, parameters = draw(schemes)
    return WatermarkSpec(
        scheme=scheme,
        parameters=parameters,
        context_width=draw(st.integers(1, 32)),
        subkeys=draw(st.integers(1, 1024)),
        global_share=draw(st.sampled_from([0, 1]) | st.floats(0, 1)),
        vocabulary_size=draw(st.integers(2, 2**31)),
        tokenizer=draw(st.text(max_size=40)),
        key_fingerprint=draw(st.text(max_size=40)),
        epoch=draw(st.integers(0, 2**31)),
    )


def document(**changes) -> bytes:
    return json.dumps({**REQUIRED, **changes}).encode()


# ------------------------------------------------------------------------------------ one form, one identity


def test_the_canonical_form_and_the_id_never_change():
    """Written by hand: commitments and reports of earlier releases name these bytes and ids."""
    canonical = (
        b'{"context_width":2,"epoch":0,"global_share":1.0,"key_fingerprint":"49e5696b","parameters":{},'
        b'"scheme":"gumbel","subkeys":4,"tokenizer":"tk-0123","version":1,"vocabulary_size":49152}'
    )
    assert SPEC.canonical_json == canonical
    assert SPEC.spec_id == "dt1-" + hashlib.blake2b(canonical, digest_size=16).hexdigest()
    assert SPEC.spec_id == "dt1-564eac62aff61a0f658ecc0e40919660"
    green = WatermarkSpec(**REQUIRED, scheme="green_list", parameters={"delta": 3}, global_share=0.5, epoch=2)
    canonical = (
        b'{"context_width":2,"epoch":2,"global_share":0.5,"key_fingerprint":"49e5696b",'
        b'"parameters":{"delta":3.0,"gamma":0.25},"scheme":"green_list","subkeys":4,"tokenizer":"tk-0123",'
        b'"version":1,"vocabulary_size":49152}'
    )
    assert green.canonical_json == canonical
    assert green.spec_id == "dt1-" + hashlib.blake2b(canonical, digest_size=16).hexdigest()


@given(specs())
def test_canonical_json_is_sorted_tight_and_reads_back_to_the_same_identity(spec):
    read = json.loads(spec.canonical_json)
    assert list(read) == sorted(read)
    assert msgspec.json.encode(read, order="sorted") == spec.canonical_json
    again = parse_spec(spec.canonical_json, "x")
    assert again.spec_id == spec.spec_id
    assert again.canonical_json == spec.canonical_json
    assert again.build_scheme() == spec.build_scheme()


@given(specs(), st.randoms())
def test_neither_the_order_of_fields_nor_the_layout_matters(spec, random):
    fields = list(json.loads(spec.canonical_json).items())
    random.shuffle(fields)
    assert parse_spec(json.dumps(dict(fields), indent=3).encode(), "x").spec_id == spec.spec_id


def test_a_default_left_out_and_the_same_value_spelt_out_are_one_spec():
    assert WatermarkSpec(**REQUIRED, global_share=1).spec_id == SPEC.spec_id
    assert parse_spec(document(global_share=1, version=1, subkeys=4, parameters={}), "x").spec_id == SPEC.spec_id
    short = WatermarkSpec(**REQUIRED, scheme="tournament")
    spelt = WatermarkSpec(**REQUIRED, scheme="tournament", parameters={"depth": 30})
    assert short.spec_id == spelt.spec_id


def test_every_field_is_part_of_the_identity():
    variants: list[dict[str, Any]] = [
        {"scheme": "tournament"},
        {"scheme": "tournament", "parameters": {"depth": 29}},
        {"scheme": "green_list"},
        {"scheme": "green_list", "parameters": {"gamma": 0.5}},
        {"context_width": 3},
        {"subkeys": 5},
        {"global_share": 0.5},
        {"vocabulary_size": 49_153},
        {"tokenizer": "tk-0124"},
        {"key_fingerprint": "49e5696c"},
        {"epoch": 1},
    ]
    ids = {WatermarkSpec(**{**REQUIRED, **variant}).spec_id for variant in variants}
    assert len(ids) == len(variants)
    assert SPEC.spec_id not in ids
    assert {name for variant in variants for name in variant} == set(WatermarkSpec.__struct_fields__) - {"version"}


def test_a_wide_context_warns_that_students_will_not_be_traced():
    assert [WatermarkSpec(**REQUIRED, context_width=h).warning for h in (1, 2)] == [None, None]
    assert "hardly in any other text" in str(WatermarkSpec(**REQUIRED, context_width=3).warning)


# -------------------------------------------------------------------------------------------- what is wrong

WRONG = {
    "an unknown field": ({"strength": 1}, "unknown field `strength`"),
    "another version": (
        {"version": 2},
        "has version 2, but this dyetrace reads version 1; use the release that",
    ),
    "another version with other fields": ({"version": 2, "strength": 1}, "has version 2, but this dyetrace"),
    "version 0": ({"version": 0}, "has version 0"),
    "a version that is no number": ({"version": "1"}, "Expected `int`, got `str` - at `$.version`"),
    "a text for a number": ({"context_width": "2"}, "Expected `int`, got `str` - at `$.context_width`"),
    "a number for a text": ({"tokenizer": 5}, "Expected `str`, got `int` - at `$.tokenizer`"),
    "a broken number": ({"subkeys": 1.5}, "Expected `int`, got `float` - at `$.subkeys`"),
    "null": ({"epoch": None}, "Expected `int`, got `null` - at `$.epoch`"),
    "too narrow a context": ({"context_width": -1}, "field context_width must lie in 0 .. 32 (got -1)"),
    "too wide a context": ({"context_width": 33}, "field context_width must lie in 0 .. 32 (got 33)"),
    "no sub-keys": ({"subkeys": 0}, "field subkeys must lie in 1 .. 1024 (got 0)"),
    "too many sub-keys": ({"subkeys": 1025}, "field subkeys must lie in 1 .. 1024 (got 1025)"),
    "a negative share": ({"global_share": -0.1}, "field global_share must lie in 0.0 .. 1.0 (got -0.1)"),
    "too large a share": ({"global_share": 1.01}, "field global_share must lie in 0.0 .. 1.0 (got 1.01)"),
    "no vocabulary": ({"vocabulary_size": 1}, "field vocabulary_size must lie in 2 .. 2147483648 (got 1)"),
    "too large a vocabulary": ({"vocabulary_size": 2**31 + 1}, "vocabulary_size must lie in 2 .. 2147483648"),
    "a negative epoch": ({"epoch": -1}, "field epoch must lie in 0 .. 2147483648 (got -1)"),
    "a huge epoch": ({"epoch": 10**30}, "field epoch must lie in"),
    "an unknown scheme": (
        {"scheme": "kgw"},
        "no scheme is called 'kgw'; installed here: green_list, gumbel, to",
    ),
    "parameters in a list": ({"parameters": []}, "Expected `object`, got `array` - at `$.parameters`"),
    "an unknown parameter": ({"parameters": {"depth": 3}}, "scheme 'gumbel' has no parameter 'depth'"),
    "a parameter that is an attribute": ({"parameters": {"name": "x"}}, "'gumbel' has no parameter 'name'"),
    "a misspelt parameter": (
        {"scheme": "green_list", "parameters": {"gama": 0.5}},
        "scheme 'green_list' has no parameter 'gama'",
    ),
    "a parameter of the wrong type": (
        {"scheme": "green_list", "parameters": {"gamma": "half"}},
        "scheme 'green_list': Expected `float`, got `str` - at `$.gamma`",
    ),
    "a broken depth": (
        {"scheme": "tournament", "parameters": {"depth": 2.5}},
        "scheme 'tournament': Expected `int`, got `float` - at `$.depth`",
    ),
    "a depth beyond the word": (
        {"scheme": "tournament", "parameters": {"depth": 33}},
        "depth must lie in 1 .. 32, the bits of a word (got 33)",
    ),
    "no depth": ({"scheme": "tournament", "parameters": {"depth": 0}}, "depth must lie in 1 .. 32"),
    "all green": ({"scheme": "green_list", "parameters": {"gamma": 1}}, "gamma must lie in (0, 1) (got 1.0)"),
    "none green": (
        {"scheme": "green_list", "parameters": {"gamma": 0}},
        "gamma must lie in (0, 1) (got 0.0)",
    ),
    "no bias": ({"scheme": "green_list", "parameters": {"delta": 0}}, "delta must lie in (0, 20] nats"),
    "too much bias": (
        {"scheme": "green_list", "parameters": {"delta": 21}},
        "delta must lie in (0, 20] nats",
    ),
    "sampling without a context": ({"context_width": 0}, "scheme 'gumbel' needs context_width of 1 or more"),
    "no contexts to split": (
        {"context_width": 0, "scheme": "green_list", "global_share": 0.5},
        "context_width 0 leaves no contexts to split between tenants: set global_share to 1",
    ),
}


@pytest.mark.parametrize("changes, message", WRONG.values(), ids=list(WRONG))
def test_a_wrong_spec_is_one_line_that_names_file_and_field(tmp_path, changes, message):
    path = tmp_path / "spec.json"
    path.write_bytes(document(**changes))
    with pytest.raises(DyetraceError) as error:
        load_spec(path)
    assert str(error.value).startswith(f"spec {path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field):
    rest = {name: value for name, value in REQUIRED.items() if name != field}
    with pytest.raises(DyetraceError, match=f"x is not a watermark spec: .*missing required field `{field}`"):
        parse_spec(json.dumps(rest).encode(), "x")


def test_a_spec_that_is_built_is_checked_like_one_that_is_read():
    with pytest.raises(DyetraceError, match=r"^spec field subkeys must lie in"):
        WatermarkSpec(**REQUIRED, subkeys=0)
    with pytest.raises(DyetraceError, match=r"gamma must lie in \(0, 1\) \(got nan\)"):
        WatermarkSpec(**REQUIRED, scheme="green_list", parameters={"gamma": float("nan")})
    with pytest.raises(DyetraceError, match="global_share must lie in"):
        WatermarkSpec(**REQUIRED, global_share=float("nan"))


def test_green_lists_alone_may_have_no_context():
    assert WatermarkSpec(**REQUIRED, context_width=0, scheme="green_list").context_width == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"PK\x03\x04",
        document().replace(b"tk-", b"\xff"),
        document() + b"x",
        document().replace(b"}", b', "parameters": ' + b"[" * 100_000),
        document().replace(b"}", b', "other": ' + b"[" * 100_000),
        document().replace(b"}", b', "global_share": NaN}'),
        document().replace(b"}", b', "global_share": 1e999}'),
    ],
    ids=[
        "nothing",
        "null",
        "list",
        "UTF-16",
        "archive",
        "Latin-1",
        "more",
        "deep",
        "deeper",
        "NaN",
        "infinite",
    ],
)
def test_what_is_no_json_is_one_line_that_names_the_file(data):
    with pytest.raises(DyetraceError, match=r"^file x is not") as error:
        parse_spec(data, "file x")
    assert "\n" not in str(error.value)


def test_every_truncation_is_an_error():
    whole = WatermarkSpec(**REQUIRED, scheme="tournament").canonical_json
    for length in range(len(whole)):
        with pytest.raises(DyetraceError, match=r"^x is not whole JSON"):
            parse_spec(whole[:length], "x")


@given(
    st.dictionaries(
        st.sampled_from([*WatermarkSpec.__struct_fields__, "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=4,
        ),
    ),
    st.binary(max_size=3),
    st.integers(0, 400),
)
def test_anything_is_either_a_spec_or_one_line(fields, junk, at):
    data = document(**fields)
    for candidate in (data, data[:at] + junk + data[at:]):
        try:
            spec = parse_spec(candidate, "x")
        except DyetraceError as error:
            assert str(error).startswith("x")
        else:
            assert parse_spec(spec.canonical_json, "x").spec_id == spec.spec_id


# -------------------------------------------------------------------------------------------------- files


@given(specs())
@settings(max_examples=20)
def test_spec_files_read_back(tmp_path_factory, spec):
    path = tmp_path_factory.getbasetemp() / "spec.json"
    write_spec(path, spec)
    assert load_spec(path).spec_id == spec.spec_id
    assert path.read_bytes() == msgspec.json.format(spec.canonical_json, indent=2) + b"\n"


def test_a_missing_spec_says_how_to_write_one(tmp_path):
    with pytest.raises(DyetraceError, match=r"cannot read spec .*/spec.json: No such file .*`dyetrace spec`"):
        load_spec(tmp_path / "spec.json")


def test_a_failing_write_leaves_the_old_spec_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "spec.json"
    write_spec(path, SPEC)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DyetraceError, match=r"cannot write .*/spec.json: No space left on device"):
        write_spec(path, WatermarkSpec(**REQUIRED, epoch=1))
    assert load_spec(path) == SPEC
    assert os.listdir(tmp_path) == ["spec.json"]


# --------------------------------------------------------------------------------- the other side's material


def test_a_wrong_tokenizer_is_an_error_that_shows_both():
    check_tokenizer(SPEC, "tk-0123", 49_152)
    with pytest.raises(DyetraceError, match="wrong tokenizer: its vocabulary has 50257 entries, the spec's 49152"):
        check_tokenizer(SPEC, "tk-0123", 50_257)
    with pytest.raises(DyetraceError, match="wrong tokenizer: its fingerprint is tk-9999, the spec's tk-0123"):
        check_tokenizer(SPEC, "tk-9999", 49_152)


def test_a_wrong_key_is_an_error_that_shows_both():
    check_key(SPEC, "49e5696b")
    for wrong in itertools.chain(["", "49e5696b0"], (f"{i}9e5696b" for i in range(4))):
        with pytest.raises(DyetraceError, match=f"wrong key: its fingerprint is {wrong}, the spec's 49e5696b"):
            check_key(SPEC, wrong)
