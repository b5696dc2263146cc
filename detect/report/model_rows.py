"""The rows of a report's table of models: each with its role and hash, an adapter's base model below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from detect.records.trace import ModelSeen
from detect.report.closing import cell, digest_cell, name_cell
from detect.report.story import Cell


def model_rows(models: Iterable[tuple[str, ModelSeen]]) -> Iterator[list[Cell]]:
    """Cells for role, name, tokenizer and SHA-256.

    Parameters
    ----------
    models
        Roles and models.
    """
    for role, model in models:
        name = model.name if model.form is None else f"{model.name} ({model.form})"
        yield [name_cell(role), name_cell(name), cell(model.tokenizer), digest_cell(model.sha256)]
        if model.base is not None:
            yield [name_cell(f"its base: {role}"), name_cell(model.base), cell(None), digest_cell(model.base_sha256)]
