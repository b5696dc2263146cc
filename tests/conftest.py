"""Session-wide material: the real demo model and natural text, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tokenizers import Tokenizer

from detect.models import kept
from detect.text.natural_text import natural_documents
from watermark.models.demo import demo_model_dir
from watermark.models.folder import load_model
from watermark.models.tokenizer import load_tokenizer

# The first example of a property may wait for a compiler (numba), so no example has a deadline.
settings.register_profile("dyetrace", deadline=None)
settings.load_profile("dyetrace")


@pytest.fixture(scope="session", autouse=True)
def own_predictions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What models read in tests is kept for these tests alone: another day's code may read otherwise."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "cache_root", lambda: folder)
        yield


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The demo model's folder, as a user gets it: downloaded and converted once per machine."""
    return demo_model_dir()


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_dir: Path) -> Tokenizer:
    return load_tokenizer(smollm2_dir)


@pytest.fixture(scope="session")
def smollm2(smollm2_dir: Path) -> Any:
    """The demo model itself, in bf16 on the CPU."""
    model, _ = load_model(smollm2_dir)
    return model


def _texts(kind: str, limit: int) -> list[str]:
    return [text for _, text in natural_documents(kind, limit)]


@pytest.fixture(scope="session")
def prose() -> list[str]:
    return _texts("prose", 200)


@pytest.fixture(scope="session")
def code() -> list[str]:
    return _texts("code", 40)


@pytest.fixture(scope="session")
def licences() -> list[str]:
    return _texts("licences", 40)
