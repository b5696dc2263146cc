"""The README's table of formats says what the classes say, row by row."""

from __future__ import annotations

from pathlib import Path

from tests.watermark.formats.test_registry import made
from watermark.formats.protocol import Format
from watermark.registry import FORMATS

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def pvalues(scheme: Format) -> str:
    if scheme.exact:
        return "exact"
    if scheme.seed_bits:
        return f"law's tail + 2^-{scheme.seed_bits}"
    return "rank among decoys, then a proven bound" if hasattr(scheme, "log10_bound") else "rank among decoys"


def row(name: str) -> str:
    scheme = made(name)
    return f"| `{name}` | {scheme.system} | {pvalues(scheme)} | {scheme.why_not_exact or '-'} | {scheme.licence} |"


def test_every_format_has_its_row_and_no_other_does() -> None:
    start = README.index("| format | checked against |")
    rows = README[start : README.index("\n\n", start)].splitlines()[2:]
    assert rows == [row(name) for name in FORMATS.built_in]
