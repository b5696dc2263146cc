from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest

from detect import natural_text
from detect.natural_text import KINDS, natural_documents
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
    monkeypatch.setattr(natural_text, "_package_files", lambda: iter(()))
    with pytest.raises(DyetraceError, match="pip install django"):
        natural_documents("languages")


def test_an_unknown_kind_or_a_senseless_limit_is_refused() -> None:
    with pytest.raises(
        DyetraceError, match=r"\('poetry'\) must be one of prose, code, licences, repetitive, languages"
    ):
        natural_documents("poetry")
    with pytest.raises(DyetraceError, match=r"limit \(0\) must be at least 1"):
        natural_documents("prose", 0)
