"""The small real world of whole commands, made once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.distillation.server import Server
from tests.innocents.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def teacher_served(world: World) -> Iterator[Server]:
    """The teacher's twin behind an endpoint: its own decisions, its own dice, and no key."""
    with Server(*world.model("teacher"), name="suspect") as server:
        yield server
