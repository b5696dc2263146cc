"""How what a record holds is written for people: strings, p-values, e-values, levels, times and names of keys.

A record may come from anyone, and its names and texts from a suspect: every string is untrusted. `clean` makes one fit
to be shown; markup of any kind is the business of whoever shows it.
"""

from __future__ import annotations

import math
from datetime import datetime

from detect.records.key_name import KeyName


def clean(text: str, limit: int | None = None) -> str:
    r"""Escape every character of ``text`` that is not printable (``\x1b``, ``\u202e``).

    Those are the C0 and C1 controls, bidirectional overrides and marks, zero-width characters, line
    separators, private and unassigned code points, and lone surrogates. Spaces of any width stay.

    Parameters
    ----------
    text
        Untrusted.
    limit
        Keep at most this many characters of it, and say so.
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + f" [{len(text) - limit:,} more characters]"
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(c: str) -> str:
    return c if c.isprintable() or _is_space(c) else c.encode("unicode_escape").decode()


def _is_space(character: str) -> bool:
    return character.isspace() and character not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"


def format_p(log10_p: float | None) -> str:
    """Write a p-value for people: "10^-38.2", or "0.43" where it is above 0.001. Rounded up, never down."""
    if log10_p is None:
        return "not given"
    if math.isnan(log10_p):
        return "not a number"
    if log10_p == -math.inf:
        return "0"
    if log10_p >= 0:
        return "1"
    if log10_p <= -3:
        return f"10^{math.ceil(log10_p * 10 - 1e-6) / 10:.1f}"
    step = 10.0 ** (math.floor(log10_p) - 1)
    return f"{math.ceil(10.0**log10_p / step - 1e-6) * step:#.2g}".replace("1.0", "1")


def format_level(alpha: float) -> str:
    """Write a level such as 1e-6 for people: "10^-6"."""
    return f"{alpha:g}" if alpha > 1e-3 else format_p(math.log10(alpha)).removesuffix(".0")


def format_e(log10_e: float) -> str:
    """Write an e-value for people: "10^12.3", "48" or "0.43". Rounded down, never up."""
    if not math.isfinite(log10_e):
        return "0" if log10_e == -math.inf else "not a number" if math.isnan(log10_e) else "infinite"
    if abs(log10_e) >= 3:
        return f"10^{math.floor(log10_e * 10 + 1e-6) / 10:.1f}"
    value = 10.0**log10_e
    if value >= 10:
        return f"{math.floor(value + 1e-6)}"
    step = 10.0 ** (math.floor(log10_e) - 1)
    return f"{math.floor(value / step + 1e-6) * step:#.2g}"


def format_time(moment: str) -> str:
    """Write an ISO 8601 time for people: "2026-02-03 04:05 UTC"; leave anything else as it is."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{parsed:%Y-%m-%d %H:%M}" + (f" {parsed.tzname()}" if parsed.tzinfo else "")


def coin_tosses(log10_p: float) -> int:
    """Count the tosses of a fair coin that must all be called right to be as lucky as this p-value."""
    return max(0, math.floor(-log10_p / math.log10(2.0)))


def key_label(key: str) -> str:
    """Name a key: "global", "tenant NAME", "tenant NAME (epoch 2)"."""
    name = KeyName.read(key)
    label = "global" if name.is_global else f"tenant {name.tenant}"
    return f"{label} ({name.of_spec})" if name.of_spec else label


def key_phrase(key: str) -> str:
    """Name a key in a sentence: "the global key", "the key of tenant NAME"."""
    name = KeyName.read(key)
    phrase = "the global key" if name.is_global else f"the key of tenant {name.tenant}"
    return f"{phrase} ({name.of_spec})" if name.of_spec else phrase


def counted(number: int, what: str) -> str:
    """Write how many of something there are: "1 document", "1,200 documents"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Write a share: "5%", "12.3%", with two digits where it is small: "0.042%"."""
    value = 100 * share
    if value >= 99.95 or abs(value - round(value)) < 1e-9:
        return f"{value:.0f}%"
    digits = max(1, 1 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}%"
