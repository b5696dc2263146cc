"""Tables that can be read on a narrow screen: every cell bears its column's name, which the style shows beside it.

A page's tables are rows of columns on paper and on a wide screen. Where there is no room for columns each row becomes a
block of lines, "name: value" (style.css.j2).
"""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)(table|thead|tr|th|td)\b([^>]*)>")
_ANY_TAG = re.compile(r"<[^>]*>")
_ROWS = re.compile(r'rowspan="?(\d+)')


def labelled(page: str) -> str:
    """Give every cell of a page's tables its column's name as ``data-label``.

    Parameters
    ----------
    page
        Finished markup of the project's own: everything else in it is escaped, so that no ">" stands in an attribute.
    """
    parts: list[str] = []
    names: list[str] = []
    taken: dict[int, int] = {}  # rows that a cell above still takes in each column
    end = column = 0
    head = False
    for match in _TAG.finditer(page):
        closing, tag, attributes = match.groups()
        if tag == "table":
            names, taken = [], {}
        elif tag == "thead":
            head = not closing
        elif tag == "tr" and not closing:
            column = 0
        elif head and tag == "th" and not closing:
            name = page[match.end() : page.index("</th>", match.end())].replace("<sup>", "^")
            names.append(_ANY_TAG.sub("", name).strip())
        elif not closing and not head:
            while taken.get(column, 0):
                taken[column] -= 1
                column += 1
            if column < len(names) and tag == "td":
                parts += [page[end : match.start()], f'<td data-label="{names[column]}"{attributes}>']
                end = match.end()
            rows = _ROWS.search(attributes)
            taken[column] = int(rows[1]) - 1 if rows else 0
            column += 1
        elif tag == "tr":  # cells above that end the row
            for after in range(column, len(names)):
                taken[after] = max(0, taken.get(after, 0) - 1)
    return "".join([*parts, page[end:]])
