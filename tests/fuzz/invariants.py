"""What holds after every run of every command, whatever it was given."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from posixpath import normpath, splitext

from detect.cli.statuses import FOUND, INTERNAL, INTERRUPTED, STATUSES, TERMINATED
from tests.fuzz.grammar import names_of_options, options
from tests.fuzz.jobs import Job
from tests.fuzz.running import Outcome
from tests.fuzz.workshop import API_KEY, OTHER, OWNER

ALLOWED = frozenset(status.number for status in STATUSES) - {INTERNAL.number}
_KILLED = 137
_TEMPORARY = ("tmp/dyetrace-", "tmp/torchinductor_")  # machine code, and what torch makes when it is loaded
_MOST_LINES = 40  # on standard error
_WRITTEN_BESIDE = {
    "generate": (".partial", ".partial.json", ".keys"),
    "commit": (".opening",),
    "twins commit": (".opening",),
    "twins erase": (".keys",),
    "twins regenerate": (".keys",),
    "report keygen": (".pub",),
}
# What a command may change where it is told to: earlier specs, answers, reports, twins, and nothing else of anybody's.
_REPLACEABLE = re.compile(
    r"(mine|out)/(spec|tenants|green|foreign)\.json|(mine|out)/(answers|acme|placebo)\.jsonl"
    r"|(mine|out|odd)/([a-z]+-)?twins\.ledger(\.keys)?"  # pairs are added, and keys of erased ones go
    r"|(mine|out|odd)/(detection|scan|trace|signed)(/(report\.(json|html|pdf|json\.sig)|documents\.parquet|hits\.jsonl"
    r"|skipped\.jsonl|run\.json|evidence\.npz))?"
)
# What the same command goes on from; random bytes that answers are drawn by stay from the first attempt on.
_WORK = re.compile(r"/\.dyetrace-|\.partial(\.json)?$")
_SCRATCH = re.compile(r"(.*/)?\.(dyetrace-|.+\.)[a-z0-9_]{8}")  # what was being written when the process was killed
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_FAULTS = (b"Traceback (most recent call last)", b"internal error", b"Exception ignored", b"DeprecationWarning")
_OTHERS_OPTIONS = frozenset(["--watermark-config"])  # vLLM's and SGLang's, which messages explain


def faults(job: Job, outcome: Outcome) -> list[str]:
    """Everything that is wrong with a run; each begins with what kind of fault it is."""
    return [*_end(job, outcome), *_messages(job, outcome), *_secrets(outcome), *_files(job, outcome)]


def _end(job: Job, outcome: Outcome) -> Iterator[str]:
    status, ended = outcome.ended.status, outcome.ended
    sent = {"INT": INTERRUPTED.number, "TERM": TERMINATED.number, "KILL": _KILLED}.get(job.signal)
    special = {INTERRUPTED.number, TERMINATED.number, _KILLED}
    wanted = {sent} | ({INTERRUPTED.number} if ended.late else set())
    if ended.hung:
        yield "hang: it went on after Ctrl-C"
    elif status not in ALLOWED | {_KILLED} or (status in special and status not in wanted):
        yield f"status: {status}"
    for name in ended.left:
        yield f"left behind: {name[:60]}"
    for sign in _FAULTS:
        if sign in outcome.stderr or sign in outcome.stdout:
            yield f"fault: {_last_line(outcome.stderr) or sign.decode()}"
            break


def _messages(job: Job, outcome: Outcome) -> Iterator[str]:
    status = outcome.ended.status
    told = outcome.stderr.decode(errors="replace")
    lines = told.splitlines()
    said = [line for line in lines if line.startswith("dyetrace: ")]
    usage = [line for line in lines if line.startswith(("Usage: ", "Error: "))]
    if status in (0, FOUND.number):
        if _wants_json(job) and "--help" not in job.words and job.stdout == "kept" and not _is_json(outcome.stdout):
            yield "json: standard output is not JSON"
        return
    if status in ALLOWED and job.stderr == "kept":
        too_early = job.process and outcome.ended.by_signal  # Python itself was still starting
        if not said and not usage and not too_early and not (status in (3, 4) and outcome.stdout):
            yield f"silent: status {status} without a line that says why"
        if len(said) > 1 + bool(job.signal or outcome.ended.late):  # an interrupt may come just after another failure
            yield f"lines: {len(said)} lines say why"
    if len(lines) > _MOST_LINES:
        yield f"lines: {len(lines)} on standard error"
    for name in _unknown_options(job, said):
        yield f"advice: {name} is no option of {job.command!r}"


def _wants_json(job: Job) -> bool:
    """Whether --json is an option there, and not what another one was given."""
    before = ["", *job.words]
    taking = {option.name for option in options()[job.command] if option.kind != "flag"} | {"-o"}
    return any(word == "--json" and previous not in taking for previous, word in zip(before, job.words, strict=False))


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        try:
            return all(isinstance(json.loads(line), dict) for line in data.splitlines())
        except ValueError:
            return False
    return True


def _unknown_options(job: Job, said: list[str]) -> Iterator[str]:
    """Options that a message names, and which neither this command nor one that it names has."""
    known = names_of_options()
    for line in said:
        for word in sorted(job.words, key=len, reverse=True):
            if not word.startswith("--") or word not in known[job.command]:
                line = line.replace(word, "") if len(word) > 2 else line
        allowed = known[job.command] | _OTHERS_OPTIONS
        for name, names in known.items():
            if name and re.search(rf"\b{re.escape(name)}\b", line):
                allowed |= names
        for found in _OPTION.findall(line):
            if found not in allowed:
                yield found


def _secrets(outcome: Outcome) -> Iterator[str]:
    places = {"standard output": outcome.stdout, "standard error": outcome.stderr}
    places |= {name: data for name, data in outcome.written.items() if not _is_private(name, outcome)}
    for place, data in places.items():
        lower = data.lower()
        for secret in _forms():
            if secret.lower() in lower:
                yield f"secret: in {place}"
                break


def _is_private(name: str, outcome: Outcome) -> bool:
    return outcome.changed[name] == "new" and name.endswith((".key", ".opening"))


def _forms() -> Iterator[bytes]:
    for key in (OWNER, OTHER):
        yield from (
            key,
            key.hex().encode(),
            base64.b64encode(key).rstrip(b"="),
            base64.urlsafe_b64encode(key).rstrip(b"="),
        )
        yield repr(key)[2:-1].encode()
    yield API_KEY.encode()


def _files(job: Job, outcome: Outcome) -> Iterator[str]:
    allowed = _outputs(job)
    for name, how in outcome.changed.items():
        own = _is_under(name, allowed)
        if how != "new":
            if not (own and _REPLACEABLE.fullmatch(name)):
                yield f"file {how}: {name}"
        elif name.startswith("tmp/"):
            if outcome.ended.status != _KILLED and not name.startswith(_TEMPORARY):
                yield f"left in the temporary folder: {name}"
        elif outcome.ended.status == _KILLED and _SCRATCH.fullmatch(name):
            continue
        elif not own and not name.startswith(("home/.cache", "cache/")):
            yield f"new file: {name}"
        elif outcome.ended.status == 2 and name in outcome.written and not _WORK.search(name):
            yield f"new file though refused: {name}"


def _outputs(job: Job) -> tuple[str, ...]:
    """Names, from the workshop, of all that a command may write: any of its words."""
    found = list(job.words)
    if job.command == "trace plan":
        found += [f"{splitext(word)[0]}.chances.npz" for word in found]
    if job.command == "report sign":
        found += [f"{word}.sig" for word in found]
    for ending in _WRITTEN_BESIDE.get(job.command, ()):
        found += [f"{word}{ending}" for word in found]
    if job.command == "demo":
        found.append("dyetrace-demo")
    return tuple(_from_workshop(word) for word in found)


def _from_workshop(word: str) -> str:
    return normpath(f"here/{word.removeprefix('--output=')}")


def _is_under(name: str, allowed: tuple[str, ...]) -> bool:
    return "." in allowed or any(
        name == path or name.startswith(f"{path}/") or path.startswith(f"{name}/") for path in allowed
    )


def _last_line(data: bytes) -> str:
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "internal error" in line]
    return (told or lines or [""])[-1][:200]
