"""What stands where: a table's cells, some of which reach over rows below, and documents that stand side by side."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from detect.report.runs import plain
from detect.report.story import Block, Cell, Code, Details, Plot, Table, Tokens

ELSEWHERE = "The text itself, tinted token by token, is on the page (report.html)."
"""What stands in the place of a tinted text where there are no tints."""

Row = list[Cell | None]


def placed(table: Table, most: int | None = None) -> list[Row]:
    """The first rows of a table, a place for each column; None where a cell above reaches in.

    Parameters
    ----------
    most
        Rows at most; the last ones are whole: what reaches over several rows is cut to those that are there.
    """
    given = table.rows[:most]
    taken = [0] * len(table.columns)  # rows that a cell above still takes in each column
    rows: list[Row] = []
    for number, cells in enumerate(given):
        rest = iter(cells)
        row: Row = []
        for column, left in enumerate(taken):
            if left:
                row.append(None)
                taken[column] -= 1
                continue
            cell = next(rest)
            rows_left = len(given) - number
            row.append(cell if cell.rows <= rows_left else replace(cell, rows=rows_left))
            taken[column] = min(cell.rows, rows_left) - 1
        rows.append(row)
    return rows


def labels(table: Table) -> list[str]:
    """The columns' names as plain text."""
    return [plain(column.name) for column in table.columns]


def stretches(blocks: Sequence[Block]) -> Iterator[tuple[bool, list[Block]]]:
    """Blocks in stretches, and of each whether it is small details, which stand side by side where there is room."""
    for details, found in groupby(blocks, lambda block: isinstance(block, Details)):
        stretch = list(found)
        yield details and len(stretch) > 1 and not any(map(_large, stretch)), stretch


def _large(block: Block) -> bool:
    return isinstance(block, Details) and any(isinstance(inner, Table | Tokens | Code) for inner in block.blocks)


def description(plot: Plot) -> str:
    """What a drawing says that it shows."""
    found = re.search(r"<desc[^>]*>(.*?)</desc>", plot.svg, re.DOTALL)
    return "" if found is None else html.unescape(found[1])
