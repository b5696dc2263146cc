"""What the distribution says of its licences: the code's, and that of the text that comes with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_licences_of_code_and_text_are_named_and_their_files_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["license"] == "Apache-2.0 AND PSF-2.0"
    texts = {name: (ROOT / name).read_text() for name in project["project"]["license-files"]}
    assert "Apache License" in texts["LICENSE"]
    assert "Python Software Foundation" in texts["detect/texts/NOTICE.txt"]
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in texts["detect/texts/LICENSE-PYTHON.txt"]
    assert "texts/*" in project["tool"]["setuptools"]["package-data"]["*"]  # beside the text itself as well
