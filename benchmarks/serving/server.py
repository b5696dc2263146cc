"""A real vLLM server on loopback, started and stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 600.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def vllm_server(python: str, model: Path, settings: Path, log: Path, *arguments: str) -> Iterator[str]:
    """Start ``vllm.entrypoints.openai.api_server`` and yield its address; it serves the model as "served".

    Parameters
    ----------
    python
        An interpreter with vLLM and dyetrace.
    model
        Folder of the model and its tokenizer.
    settings
        File of the hook's settings.
    log
        Where its output goes.
    arguments
        More of the server's own.

    Raises
    ------
    RuntimeError
        It ends or does not answer in time; the message has the end of its log.
    """
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name"]
    command += ["served", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager", *arguments]
    with log.open("wb") as output:
        environment = os.environ | {"DYETRACE_CONFIG": str(settings)}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _PATIENCE:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the server did not start: {tail}")
