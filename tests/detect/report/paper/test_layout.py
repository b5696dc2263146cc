"""Where cells of a table stand."""

from __future__ import annotations

from detect.report.closing import cell
from detect.report.paper.layout import placed
from detect.report.runs import plain
from detect.report.story import Table, column


def stand(rows: list[list[tuple[str, int]]], most: int | None = None) -> list[list[str | None]]:
    """Texts of the cells by row and column; None where a cell above reaches in."""
    columns = [column("a"), column("b")]
    table = Table("t", columns, [[cell(text, rows=reach) for text, reach in row] for row in rows])
    return [[None if one is None else f"{plain(one.text)}{one.rows}" for one in row] for row in placed(table, most)]


def test_a_cell_that_reaches_over_rows_leaves_its_place_below_empty() -> None:
    rows = [[("x", 3), ("1", 1)], [("2", 2)], [], [("y", 1), ("3", 1)]]
    assert stand(rows) == [["x3", "11"], [None, "22"], [None, None], ["y1", "31"]]


def test_where_rows_are_cut_no_cell_reaches_beyond_them() -> None:
    rows = [[("x", 3), ("1", 1)], [("2", 2)], [], [("y", 1), ("3", 1)]]
    assert stand(rows, 2) == [["x2", "11"], [None, "21"]]
    assert stand(rows, 0) == []
