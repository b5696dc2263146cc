"""The level of a test: the one default of all commands and functions, and what may be asked for."""

from __future__ import annotations

from watermark.errors import DyetraceError

DEFAULT_ALPHA = 1e-6
"""One innocent text in a million: an accusation should rest on more than a statistician's one in twenty."""


def check_alpha(alpha: float) -> None:
    """Refuse a level at which nothing, or everything, would be found.

    Raises
    ------
    DyetraceError
        It does not lie in (0, 1).
    """
    if not 0 < alpha < 1:
        raise DyetraceError(f"alpha must lie in (0, 1) (got {alpha})")
