"""The benchmarks run: each script once on tiny sizes. What they measure is no test's business."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numba
import pytest
import torch
from click.testing import CliRunner

SCRIPTS = {
    "hook_cost": [],
    "detection_speed": [],
    "power": ["--keep"],
    "quality": ["--keep"],
    "calibration": [],
    "robustness": ["--keep"],
    "corpus_statistics": [],
    "scan_speed": [],
    "formats_permutation": [],
    "ledger": [],
    "distillation.__main__": ["--keep"],
    "formats_hash": [],
}


@pytest.fixture(scope="module")
def kept_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(torch_threads)
    numba.set_num_threads(numba_threads)


@pytest.mark.usefixtures("smollm2_dir")
@pytest.mark.filterwarnings("default")  # the peers' warnings are theirs
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_runs_on_tiny_sizes(script: str, tmp_path: Path, kept_answers: Path) -> None:
    main = import_module(f"benchmarks.{script}").main
    arguments = ["--quick", "--json", str(tmp_path / "figures.json")]
    for option in SCRIPTS[script]:
        arguments += [option, str(kept_answers)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    files = list(tmp_path.glob("figures*.json"))
    assert files
    for file in files:  # some scripts have several tables
        figures = json.loads(file.read_text())
        assert figures["rows"] and figures["machine"]["cores"] >= 1
        assert figures["title"].split(":")[0] in result.output
