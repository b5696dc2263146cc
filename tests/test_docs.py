"""What the code says of the documentation is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NAMED = re.compile(r'[Ll]ines?\s+((?:"[a-z ]+"(?:\s+and\s+)?)+)\s+of\s+`docs/validity\.md`')


def test_every_line_of_the_theory_page_that_the_code_names_stands_there() -> None:
    page = (ROOT / "docs" / "validity.md").read_text(encoding="utf-8")
    named: set[str] = set()
    for folder in ("detect", "watermark"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
            for lines in _NAMED.findall(text):
                named |= set(re.findall(r'"([a-z ]+)"', lines))
    assert {"prompts", "shown text", "served answers", "served counts", "looks", "aware"} <= named
    missing = [name for name in named if f'Line "{name}"' not in page]
    assert not missing


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} names {target}"
