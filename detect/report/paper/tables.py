"""Where a table's cells stand: some reach over rows below, which have no cell of their own there."""

from __future__ import annotations

from dataclasses import replace

from detect.report.runs import plain
from detect.report.story import Cell, Table

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
