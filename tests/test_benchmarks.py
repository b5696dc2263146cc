"""The benchmarks run: each script once on tiny sizes. What they measure is no test's business."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.distillation.teacher import _tiny
from watermark.errors import DyetraceError

VLLM = os.environ.get("DYETRACE_VLLM_PYTHON") or (sys.executable if find_spec("vllm") else None)

SCRIPTS = {
    "hook_cost": [],
    "detection_speed": [],
    "power": ["--keep", "--model"],
    "quality": ["--keep", "--model"],
    "calibration": [],
    "innocents": [],
    "robustness": ["--keep", "--model"],
    "corpus_statistics": [],
    "share_coverage": [],
    "scan_speed": [],
    "reading_speed": [],
    "accounts": [],
    "formats_permutation": [],
    "ledger": [],
    "audit": [],
    "distillation.__main__": ["--keep"],
    "twins.__main__": ["--keep"],
    "race.__main__": ["--keep"],
    "formats_hash": [],
    "fuzz": [],
    "gateway": [],
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> dict[str, Path]:
    """A folder that some share, and a model of random weights in place of the demo model."""
    kept = tmp_path_factory.mktemp("answers")
    return {"--keep": kept, "--model": _tiny(smollm2_dir, kept)}


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(torch_threads)
    numba.set_num_threads(numba_threads)


@pytest.mark.filterwarnings("default")  # the peers' warnings are theirs
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_runs_on_tiny_sizes(script: str, tmp_path: Path, given: dict[str, Path]) -> None:
    main = import_module(f"benchmarks.{script}").main
    arguments = ["--quick", "--json", str(tmp_path / "figures.json")]
    for option in SCRIPTS[script]:
        arguments += [option, str(given[option])]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    files = list(tmp_path.glob("figures*.json"))
    assert files
    for file in files:  # some scripts have several tables
        figures = json.loads(file.read_text())
        assert figures["rows"] and figures["machine"]["cores"] >= 1
        assert figures["title"].split(":")[0] in result.output


@pytest.mark.usefixtures("smollm2_dir")
@pytest.mark.skipif(VLLM is None, reason="set DYETRACE_VLLM_PYTHON to the Python of an environment with vLLM 0.32")
def test_the_mark_that_vllm_wrote_is_found_and_by_its_key_alone(tmp_path: Path) -> None:
    main = import_module("benchmarks.native_vllm").main
    options = ["--quick", "--python", str(VLLM), "--json", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    marked, opted_out = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert marked["log10_p"] < -6 and abs(marked["log10_p"] - np.log10(float(marked["vLLM_p"]))) < 0.5
    assert min(marked["neighbouring_key"], opted_out["log10_p"], opted_out["neighbouring_key"]) > -4


def test_without_vllm_its_benchmark_says_what_to_do(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    main = import_module("benchmarks.native_vllm").main
    with pytest.raises(DyetraceError, match="cannot import vLLM; give --python"):
        CliRunner().invoke(main, ["--quick", "--python", str(python)], catch_exceptions=False)


def test_an_audit_of_a_rule_that_is_not_the_systems_ends_with_an_error() -> None:
    audit = import_module("benchmarks.audit")
    [system] = [s for s in audit.installed(audit.VOCABULARY)[0] if s.scheme.name == "transformers-kgw-lefthash"]
    [detector] = system.detectors
    wrong = replace(system, detectors=[replace(detector, first=2)])
    texts = [np.arange(5, 60, dtype=np.uint32) % 7 + 1]
    keys = [system.scheme.draw_key(bytes([i]) * 32) for i in range(4)]
    for judged, message in ((system, None), (wrong, "its own call gives p")):
        read = audit.Read.of(judged, texts)
        found = audit.measure(judged, read, keys)
        if message is None:
            assert audit.check(judged, read, keys, found) == 2
        else:
            with pytest.raises(DyetraceError, match=message):
                audit.check(judged, read, keys, found)
