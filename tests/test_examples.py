"""Every example in the documentation of the code does what it shows."""

from __future__ import annotations

import doctest
import importlib
import os
from pathlib import Path

import pytest

import detect
import watermark

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for package in (watermark, detect)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


def name_of(path: Path) -> str:
    parts = path.relative_to(Path(watermark.__file__).parents[1]).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_example_gives_what_it_shows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # examples read the golden reports
    monkeypatch.setattr(os, "environ", os.environ.copy())
    try:
        module = importlib.import_module(name_of(path))
    except ImportError as error:
        assert str(error.name).partition(".")[0] not in ("detect", "watermark")
        pytest.skip(str(error))
    assert isinstance(module.__file__, str) and Path(module.__file__) == path
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0 and tried


@pytest.mark.parametrize("page", [page for page in sorted(ROOT.glob("docs/*.md")) if ">>>" in page.read_text("utf-8")])
def test_a_page_shows_what_happens(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "golden").symlink_to(ROOT / "tests" / "golden")
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=options, encoding="utf-8")
    assert failed == 0 and tried
