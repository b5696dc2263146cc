"""A small world of an owner's model, its served answers and students, and servers of tiny models; made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.detect.race.student import World, made_world
from tests.detect.student.asking.conftest import serve, tiny_model  # noqa: F401


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("race-world")
    return made_world(folder)
