from __future__ import annotations

import ast
import hashlib
import json
import lzma
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from detect.text import natural_text
from detect.text.natural_text import KINDS, PROSE_SHA256, natural_documents
from tests.detect.text import make_prose
from watermark.errors import DyetraceError

EVERYWHERE = [kind for kind in KINDS if kind != "languages"]


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_documents_are_distinct_and_the_same_every_time(kind: str) -> None:
    documents = natural_documents(kind, 30)
    assert len(documents) == 30
    assert len({name for name, _ in documents}) == len({text for _, text in documents}) == 30
    assert natural_documents(kind, 30) == documents
    assert natural_documents(kind, 7) == documents[:7]


def test_names_do_not_tell_where_python_is_installed() -> None:
    for kind in EVERYWHERE:
        assert not [name for name, _ in natural_documents(kind, 30) if name.startswith(("/", "..", "\\"))]


def test_there_is_enough_for_calibration() -> None:
    limits = {"prose": 250, "code": None, "licences": None}
    sizes = {kind: sum(len(text) for _, text in natural_documents(kind, limit)) for kind, limit in limits.items()}
    assert sizes["prose"] > 250_000
    assert sizes["code"] > 2_000_000
    assert sizes["licences"] > 50_000


def test_prose_is_the_same_for_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def another(*_: object) -> Iterator[tuple[str, str]]:
        raise AssertionError("prose depends on the running Python")

    monkeypatch.setattr(natural_text, "_standard_library", another)
    monkeypatch.setattr(natural_text, "_package_files", another)
    documents = natural_documents("prose")
    lines = b"".join(json.dumps({"name": name, "text": text}).encode() + b"\n" for name, text in documents)
    assert hashlib.sha256(lines).hexdigest() == PROSE_SHA256
    assert PROSE_SHA256 == "66d3926e83c1c1dc51aa5993557f89a2f78fc0771792988f1fb6c863bb5dae7e"  # reports name it
    assert len(documents) == make_prose.DOCUMENTS


@pytest.mark.skipif(sys.version_info[:3] != make_prose.PYTHON, reason="the shipped prose is that of Python 3.11.7")
def test_prose_is_what_python_3_11_7_holds() -> None:
    assert hashlib.sha256(make_prose.made()).hexdigest() == PROSE_SHA256


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_prose_is_one_line(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = natural_text._shipped()
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / "prose.jsonl.xz"
    if damage != "gone":
        data = lzma.compress(whole.replace(b"Python", b"python"))
        path.write_bytes(data if damage == "changed" else data[:-100])
    monkeypatch.setattr(natural_text, "__file__", str(tmp_path / "text" / "natural_text.py"))
    with pytest.raises(DyetraceError, match=r"prose\.jsonl\.xz, which is part of dyetrace"):
        natural_documents("prose")


def test_the_wheel_holds_the_prose_and_whose_it_is(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    for name in ("watermark", "detect", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    held = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    assert {f"detect/texts/{name}" for name in ("prose.jsonl.xz", "NOTICE.txt", "LICENSE-PYTHON.txt")} <= set(held)


def test_prose_reads_as_prose() -> None:
    for _, text in natural_documents("prose", 250):
        assert 500 < len(text) < 5000
        for paragraph in text.split("\n\n"):
            assert paragraph[0].isupper() and paragraph.endswith(".")
            assert "\n" not in paragraph and "    " not in paragraph
        assert sum(character.isalpha() or character == " " for character in text) > 0.85 * len(text)


def test_code_is_python() -> None:
    for _, text in natural_documents("code", 20):
        ast.parse(text)


def test_licences_are_licences() -> None:
    texts = [text.lower() for _, text in natural_documents("licences", 40)]
    assert sum("copyright" in text or "licen" in text for text in texts) >= 38


def test_repetitive_text_repeats_itself_more_than_prose() -> None:
    def share_of_distinct_lines(kind: str) -> float:
        words = " ".join(text for _, text in natural_documents(kind, 10)).split()
        return len(set(words)) / len(words)

    assert share_of_distinct_lines("repetitive") < 0.6 * share_of_distinct_lines("prose")


def catalogue(messages: dict[str, str], order: str) -> bytes:
    """A gettext .mo file, by the format in the GNU gettext manual."""
    entries = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    count, body, tables = len(entries), b"", ([], [])  # type: tuple[int, bytes, tuple[list[int], list[int]]]
    start = 28 + 16 * count
    for column, table in enumerate(tables):
        for entry in entries:
            data = entry[column].encode()
            table += [len(data), start + len(body)]
            body += data + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + struct.pack(f"{order}{4 * count}I", *tables[0], *tables[1]) + body


@pytest.mark.parametrize("order", "<>")
def test_translations_come_from_whatever_packages_are_installed(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = {f"m{i}": f"Der {i}. Satz steht hier auf Deutsch und ist lang genug." for i in range(60)}
    noise = {"short": "Kurz.", "template": "Der Wert %(value)s ist hier leider nicht erlaubt."}
    files = []
    for language in ("de", "en_GB"):
        path = tmp_path / "polyglot" / "locale" / language / "LC_MESSAGES" / "polyglot.mo"
        path.parent.mkdir(parents=True)
        path.write_bytes(catalogue(sentences | noise, order))
        files.append(path.relative_to(tmp_path))
    info = tmp_path / "polyglot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polyglot\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(tmp_path)
    documents = dict(natural_documents("languages"))
    assert sorted(documents["de/polyglot"].splitlines()) == sorted(sentences.values())
    assert "en_GB/polyglot" not in documents


def test_a_bare_installation_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natural_text, "_package_files", lambda wanted: iter(()))
    with pytest.raises(DyetraceError, match="pip install django"):
        natural_documents("languages")


def test_an_unknown_kind_or_a_senseless_limit_is_refused() -> None:
    with pytest.raises(
        DyetraceError, match=r"\('poetry'\) must be one of prose, code, licences, repetitive, languages"
    ):
        natural_documents("poetry")
    with pytest.raises(DyetraceError, match=r"limit \(0\) must be at least 1"):
        natural_documents("prose", 0)
