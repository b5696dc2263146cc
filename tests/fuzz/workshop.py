"""A user's folders with one of each artefact, what is odd beside them, and what lies where outputs might go.

``python -m tests.fuzz.workshop FOLDER`` makes them, with the commands themselves and a model of two layers:

* ``mine``: keys, specs, commitments, documents, answers, ledgers, plans, reports. No command may change any of it.
* ``odd``: files that are broken or no files at all.
* ``out``: earlier outputs, and other people's files.
* ``here``: where commands run; empty before each.
* ``home``, ``tmp``, ``cache``: as their names say; the tiny model stands in the cache for the demo model.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

OWNER, OTHER = bytes(range(32)), bytes(range(64, 96))
API_KEY = "sk-fuzz-0123456789abcdef"
NOWHERE = "http://127.0.0.1:9"  # nobody listens there
FOLDERS = ("mine", "odd", "out", "here", "home", "tmp", "cache")


def make(folder: Path) -> None:
    """Make all of it in an empty folder."""
    for name in FOLDERS:
        (folder / name).mkdir()
    os.environ |= {"HOME": str(folder / "home"), "DYETRACE_CACHE": str(folder / "cache")}
    os.chdir(folder / "mine")
    _make_model(folder)
    _make_secrets()
    _make_texts()
    _make_served()
    _make_twins()
    _make_reports()
    _make_odd(folder / "odd", folder / "mine")
    _make_earlier(folder / "out", folder / "mine")


def _run(*words: str, status: int = 0, stdin: str | None = None) -> str:
    from click.testing import CliRunner

    from detect.cli.main import main

    done = CliRunner().invoke(main, words, input=stdin)
    assert done.exit_code == status, (words, done.output, done.exception)
    return done.stdout


def _make_model(folder: Path) -> None:
    """The tiny model, with a chat template and an end; also where the demo model would lie."""
    import transformers

    from tests.tiny_models import CAUSAL, made, tokenizer
    from watermark.models import demo as demo_model

    made(CAUSAL["llama"]).save_pretrained("model")
    made(CAUSAL["llama"], seed=1).save_pretrained("suspect")
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer, eos_token="2", pad_token="0"
    )
    words.chat_template = "{% for message in messages %}3 {{ message.content }} 4 {% endfor %}"
    for name in ("model", "suspect"):
        words.save_pretrained(name)
    demo = f"smollm2-135m-instruct-{demo_model.WHEEL_SHA256[:12]}-{demo_model.CONVERSION}"
    shutil.copytree("model", folder / "cache" / demo)


def _make_secrets() -> None:
    from watermark.keys import SecretKey, write_key_file

    write_key_file(Path("owner.key"), SecretKey(OWNER))
    write_key_file(Path("other.key"), SecretKey(OTHER))
    key = ("--key", "file:owner.key")
    _run("keygen", "acme.key", "--tenant", "acme", *key)
    _run("spec", "spec.json", *key, "--model", "model", "--subkeys", "2")
    _run("spec", "tenants.json", *key, "--model", "model", "--tenants", "--subkeys", "2")
    _run("spec", "green.json", *key, "--model", "model", "--scheme", "green_list")
    _run("commit", "--spec", "spec.json", *key, "-o", "commitment.json")
    Path("vllm.json").write_text('{"scheme": "gumbel", "key": 12345}')
    _run(
        "spec", "import", "--format", "vllm-gumbel", "--from", "vllm.json", "--model", "model", "-o", "foreign.json",
        "--key-out", "foreign.key",
    )  # fmt: skip
    _run("report", "keygen", "signing.pem")
    Path("api.key").write_text(API_KEY)
    Path("api.key").chmod(0o600)


def _make_texts() -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(1)
    texts = [" ".join(map(str, draw.integers(5, 300, 60))) for _ in range(6)]
    Path("prompts.txt").write_text("".join(f"{10 + number} {20 + number} 30\n" for number in range(12)))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{40 + n} 50"}) + "\n" for n in range(3)))
    Path("accounts.txt").write_text("acme\nzenith\n")
    Path("text.txt").write_text("\n\n".join(texts))
    lines = "".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts))
    ids = "".join(json.dumps({"token_ids": [int(word) for word in text.split()]}) + "\n" for text in texts)
    Path("docs.jsonl").write_text(lines)
    Path("ids.jsonl").write_text(ids)
    Path("docs.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    Path("docs.jsonl.zst").write_bytes(pa.compress(lines.encode(), codec="zstd", asbytes=True))
    pq.write_table(pa.table({"text": texts}), "docs.parquet")


def _make_served() -> None:
    from tests.fuzz.endpoint import Endpoint
    from watermark.keys import KeyRing, SecretKey
    from watermark.ledger import Ledger
    from watermark.spec import load_spec

    generate = ("generate", "--key", "file:owner.key", "--model", "model", "--dtype", "float32", "--seed", "1")
    how = (*generate, "--prompts", "prompts.txt", "--samples", "2", "--max-new-tokens", "100")
    _run(*how, "--spec", "spec.json", "-o", "answers.jsonl", "--quiet")
    _run(*how, "--spec", "tenants.json", "--tenant", "acme", "-o", "acme.jsonl", "--quiet")
    _run(*how, "--spec", "spec.json", "--placebo", "-o", "placebo.jsonl", "--quiet")
    Path("served.sha256").write_text(_run("ledger", "hashes", "answers.jsonl"))
    spec, ring = load_spec(Path("spec.json")), KeyRing.from_master(SecretKey(OWNER))
    for name in ("one.ledger", "two.ledger"):
        Ledger.create(Path(name), spec, ring, megabytes=1).close()
    _run(
        "trace", "plan", f"{NOWHERE}/good", "--model", "suspect", "--prompts", "prompts.txt", "--spec", "spec.json",
        "--key", "file:owner.key", "--samples", "2", "--max-tokens", "20", "--decoys", "5", "-o", "plan.json",
    )  # fmt: skip
    endpoint = Endpoint()
    _run(
        "trace", "plan", f"{endpoint.address}/good", "--model", "suspect", "--read", "answers.jsonl", "--owner-model",
        "model", "--dtype", "float32", "--tokenizer", "model", "--spec", "spec.json", "--key", "file:owner.key",
        "--decoys", "5", "-o", "race.json", "--per-answer", "1", "--ask", "greedy", "--quiet",
    )  # fmt: skip
    plan = Path("race.json")
    plan.write_text(plan.read_text().replace(endpoint.address, NOWHERE))
    endpoint.close()


def _make_twins() -> None:
    """A ledger of pairs of two accounts, a commitment to it, and what an expert is shown."""
    from tests.watermark.twins.pairs import pair
    from watermark.keys import SecretKey
    from watermark.twins.ledger import TwinLedger

    with TwinLedger.open(Path("twins.ledger"), SecretKey(OWNER), write=True) as ledger:
        ledger.append_many([pair(number, ("acme", "zenith", None)[number % 3]) for number in range(7)])
    key = ("--twin-key", "file:owner.key")
    _run("twins", "commit", "twins.ledger", *key, "-o", "twins.json")
    _run("twins", "reveal", "twins.ledger", f"{0:032x}", *key, "--commitment", "twins.json", "-o", "shown.json")


def _make_reports() -> None:
    how = ("--spec", "spec.json", "--key", "file:owner.key", "--tokenizer", "model", "--decoys", "5")
    _run("detect", "answers.jsonl", *how, "-o", "detection")
    scan = ("scan", "answers.jsonl", "docs.jsonl", *how, "--null-corpus", "none", "--workers", "1")
    _run(*scan, "-o", "scan")
    _run(
        "trace", "weights", "suspect", "--read", "answers.jsonl", "--taken", "all", *how, "--dtype", "float32",
        "--contexts", "200", "-o", "trace",
    )  # fmt: skip
    shutil.copytree("scan", "signed")
    _run("report", "sign", "signed/report.json", "--signing-key", "file:signing.pem")


def _make_odd(odd: Path, mine: Path) -> None:
    for name, content in {
        "empty": b"",
        "deep-list.json": b"[" * 10**5,
        "deep-object.jsonl": b'{"text":' * 10**5 + b"1" + b"}" * 10**5,
        "object.json": b"{}",
        "list.json": b"[]",
        "number.json": b"1",
        "huge-number.json": b'{"text": 1e999, "token_ids": [' + b"9" * 5000 + b"]}\n",
        "version.json": b'{"version":1}',
        "newer.json": b'{"format":"dyetrace-scan","version":99}',
        "not-utf8.jsonl": b'{"text": "\xff\xfe"}\n',
        "not-utf8.txt": b"\xff\xfe\x00",
        "surrogate.jsonl": b'{"text": "\\ud800", "prompt": "\\ud800"}\n',
        "zeros": bytes(10**5),
        "open.key": OTHER.hex().encode(),
        "blank-lines.jsonl": b"\n\n\n",
        "negative.jsonl": b'{"token_ids": [-1, 1e3, null]}\n',
        "beyond.jsonl": b'{"token_ids": [300, 4294967296]}\n',
        "one-line.jsonl": b'{"text": "' + b"5 " * 10**5 + b'"}',
        "nul.txt": b"a\0b\n",
        "long-name-" + "x" * 200: b"10 20 30\n",
        "spaced name\nand line.txt": b"10 20 30 40 50\n",
    }.items():
        (odd / name).write_bytes(content)
    for name in ("docs.jsonl.gz", "docs.jsonl.zst", "docs.parquet", "scan/report.json", "trace/report.json",
                 "trace/evidence.npz", "detection/report.json", "one.ledger", "twins.ledger",
                 "twins.ledger.keys", "shown.json", "twins.json", "plan.json", "race.json", "race.chances.npz",
                 "spec.json", "commitment.json", "answers.jsonl", "owner.key", "signing.pem",
                 "model/tokenizer.json"):  # fmt: skip
        data = (mine / name).read_bytes()
        stem = name.replace("/", "-")
        (odd / f"cut-{stem}").write_bytes(data[: len(data) * 2 // 3])
        middle = len(data) // 2
        (odd / f"flipped-{stem}").write_bytes(data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :])
    for name in ("detection", "scan", "trace"):
        _change(mine / name, odd / name)
    parts = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors")
    for number, name in enumerate(parts):
        for kind, content in {
            "deep": b'{"vocab_size": ' + b"[" * 10**5,
            "wrong": (b"[]", b"{}", b"\xff\xfe", b"", b"1")[number],
        }.items():
            broken = odd / f"model-{kind}-{name}"
            shutil.copytree(mine / "model", broken)
            (broken / name).write_bytes(content)
    (odd / "folder").mkdir()
    (odd / "folder" / "docs.jsonl").write_text('{"text": "10 20"}\n{"te')
    for name, target in {
        "dangling": "gone",
        "loop": "loop",
        "to-key": "../mine/owner.key",
        "to-null": "/dev/null",
    }.items():
        (odd / name).symlink_to(target)
    os.mkfifo(odd / "pipe")
    for name in ("owner.key", "cut-owner.key", "flipped-owner.key", "signing.pem"):
        for path in odd.glob(f"*{name}"):
            path.chmod(0o600)


def _change(report: Path, copy: Path) -> None:
    """A report of which one number was changed."""
    shutil.copytree(report, copy)
    path = copy / "report.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    found["alpha"] = 0.5
    path.write_text(json.dumps(found))


def _make_earlier(out: Path, mine: Path) -> None:
    for name in ("detection", "scan", "trace", "signed"):
        shutil.copytree(mine / name, out / name)
    others = ("owner.key", "commitment.json.opening", "one.ledger", "twins.ledger", "twins.ledger.keys")
    for name in ("spec.json", "answers.jsonl", "plan.json", *others):
        shutil.copy(mine / name, out / name)
    (out / "notes.txt").write_text("somebody's own")
    for folder in ("busy", "scan", "trace", "detection", "work/.dyetrace-scan", "plain"):
        (out / folder / ".git").mkdir(parents=True, exist_ok=True)
        (out / folder / ".git" / "HEAD").write_text("somebody's own")
        (out / folder / "notes.txt").write_text("somebody's own")
    for name in ("report.html", "report.json.sig", "documents.parquet", "evidence.npz", "report.pdf"):
        (out / "busy" / name).write_text("somebody's own")
    for name in ("next.partial", "next.partial.json", "next.opening", "next.pub"):
        (out / name).write_text("somebody's own")


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
