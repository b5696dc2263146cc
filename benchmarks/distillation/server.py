"""A small OpenAI-compatible server for a model folder, on loopback: the suspect that API traces are tried on.

    python -m benchmarks.distillation.server MODEL_DIR --port 8000

It samples for real (batched, with left padding) and can be told to misbehave, so that no test of the client needs a
mock. Nothing here is fit for strangers: it is for one trusted user on one machine.
"""

from __future__ import annotations

import hmac
import json
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

import click

from benchmarks.distillation.batching import Batcher, Row, Token

_LARGEST_BODY, _MOST_SAMPLES, _MOST_ALTERNATIVES, _MOST_LISTED = 10_000_000, 128, 100, 20


@dataclass(frozen=True)
class Fault:
    """What to do with a request instead of serving it well.

    Attributes
    ----------
    kind
        "status" answers with ``status``, ``headers`` and ``body``; "drop" cuts the connection; "late drop" does so
        after the work is done, and in a stream where the first answer ends; "held" serves well; "pause" waits within a
        stream, after its first piece of text, for `Server.release`.
    until
        Do it once so many requests have come in all, or after `Server.release`; "held" without it: after that alone.
    """

    kind: Literal["status", "drop", "late drop", "held", "pause"]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "injected", "type": "server_error"}}'
    until: int | None = None


@dataclass(frozen=True)
class Received:
    """A request as it came: when (monotonic seconds), its path, its JSON, and how many others were under way."""

    time: float
    path: str
    body: dict[str, Any]
    beside: int


class BadRequest(Exception):
    """A request that can't be served; the message goes to the client with status 400."""


class Server:
    """A running server; use it in a ``with`` block.

    Parameters
    ----------
    model, tokenizer
        A transformers causal language model and its tokenizer.
    api_key
        Asked for as a bearer token where given.
    largest_batch
        Rows in one forward pass at most.
    faults
        For the first requests, in the order in which they come, or by the request's JSON; None serves one well.
    knows_n, says_usage
        Without them it gives one sample however many are wanted, or leaves token counts out, as some servers do.
    ignores
        Fields that it takes no notice of, as servers do with those that they don't know.
    goes_on
        When a chat's last message of the assistant is gone on with: when that is asked for (vLLM), where the message
        says ``prefix`` (DeepSeek, Mistral), always (llama.cpp's server) or never.
    repeats
        Begin a reply with the message that it goes on from, as newer servers of llama.cpp do.

    Attributes
    ----------
    url
        Base address.
    received
        All POST requests so far.
    left
        Streams whose client went away before their end.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "student",
        port: int = 0,
        api_key: str | None = None,
        largest_batch: int = 16,
        faults: Sequence[Fault | None] | Callable[[dict[str, Any]], Fault | None] = (),
        knows_n: bool = True,
        says_usage: bool = True,
        ignores: Collection[str] = (),
        goes_on: Literal["asked", "prefix", "always", "never"] = "asked",
        repeats: bool = False,
    ) -> None:
        self.name, self.api_key, self.knows_n, self.says_usage = name, api_key, knows_n, says_usage
        self.ignores, self.goes_on, self.repeats = frozenset(ignores), goes_on, repeats
        self.received: list[Received] = []
        self.faults: Any = faults if callable(faults) else deque(faults)
        self.guard = threading.Condition()
        self.under_way = 0
        self.left = 0
        self.released = False
        self.tokenizer = tokenizer
        self.spelling = Spelling(tokenizer)
        ends = getattr(model.generation_config, "eos_token_id", None)
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self.size = int(model.config.vocab_size)
        self.batcher = Batcher(model, self.ends, largest_batch)
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and close all connections."""
        self._http.shutdown()
        self.release()
        self._http.cut_connections()
        self._http.server_close()  # waits for requests under way, which wait for the batcher
        self.batcher.close()
        self._thread.join()

    def release(self) -> None:
        """Let go what is held, from now on."""
        with self.guard:
            self.released = True
            self.guard.notify_all()

    def wait_for(self, requests: int) -> None:
        """Wait until so many have come."""
        with self.guard:
            self.guard.wait_for(lambda: len(self.received) >= requests)

    def wait_until_idle(self) -> None:
        """Wait until none is under way."""
        with self.guard:
            self.guard.wait_for(lambda: not self.under_way)

    def wait_until_left(self, streams: int) -> None:
        """Wait until the clients of so many streams went away."""
        with self.guard:
            self.guard.wait_for(lambda: self.left >= streams)

    def hold(self, until: int | None) -> None:
        """Wait until so many requests have come in all, or `release`."""
        with self.guard:
            self.guard.wait_for(lambda: self.released or (until is not None and len(self.received) >= until))

    def next_fault(self, body: dict[str, Any]) -> Fault | None:
        """What to do with this request."""
        if callable(self.faults):
            found: Fault | None = self.faults(body)
        else:
            found = self.faults.popleft() if self.faults else None
        return found

    def serve(self, chat: bool, body: dict[str, Any]) -> dict[str, Any]:
        """The response to a request."""
        body = self._known(body)
        rows = self._rows(chat, body)
        self.batcher.submit(rows)
        results = [row.done.result() for row in rows]
        choices = []
        for index, (row, (tokens, ended)) in enumerate(zip(rows, results, strict=True)):
            choice = self._choice(chat, index, tokens, ended, row.top, bool(body.get("return_tokens_as_token_ids")))
            if chat and self.repeats and self._is_begun(body):
                choice["message"]["content"] = body["messages"][-1]["content"] + choice["message"]["content"]
            if row.read is not None and body.get("echo"):
                self._echo(choice, row, [] if body.get("max_tokens") == 0 else tokens)
            elif row.read is not None and not chat:
                choice["prompt_logprobs"] = self._prompt_logprobs(row)
            if body.get("return_token_ids"):
                choice["token_ids"] = [token.id for token in tokens]
                choice |= {} if chat else {"prompt_token_ids": row.prompt}
            choices.append(choice)
        response = self._head("chat.completion" if chat else "text_completion") | {"choices": choices}
        if self.says_usage:
            response["usage"] = _usage(rows[0].prompt, sum(len(tokens) for tokens, _ in results))
        if chat and body.get("return_token_ids"):
            response["prompt_token_ids"] = rows[0].prompt
        if chat and rows[0].read is not None:
            response["prompt_logprobs"] = self._prompt_logprobs(rows[0])
        return response

    def stream(self, chat: bool, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The pieces of a streamed response, each as soon as it is there."""
        body = self._known(body)
        rows = self._rows(chat, body)
        drawn: queue.SimpleQueue[tuple[int, Token | None]] = queue.SimpleQueue()
        for place, row in enumerate(rows):
            row.each = _into(drawn, place)
            row.done.add_done_callback(lambda _, place=place: drawn.put((place, None)))  # type: ignore[misc]
        self.batcher.submit(rows)
        return self._pieces(chat, body, rows, drawn)

    def _pieces(
        self, chat: bool, body: dict[str, Any], rows: list[Row], drawn: queue.SimpleQueue[tuple[int, Token | None]]
    ) -> Iterator[dict[str, Any]]:
        head = self._head("chat.completion.chunk" if chat else "text_completion")
        with_ids = body.get("return_token_ids")
        if chat:
            first = {"prompt_token_ids": rows[0].prompt} if with_ids else {}
            for place in range(len(rows)):
                delta = {"role": "assistant", "content": ""}
                yield head | {"choices": [{"index": place, "delta": delta, "finish_reason": None}]} | first
        tokens: list[list[Token]] = [[] for _ in rows]
        said, sent = ["" for _ in rows], [0 for _ in rows]
        left = len(rows)
        while left:
            place, token = drawn.get()
            reason, so_far, row = None, tokens[place], rows[place]
            if token is None:
                left -= 1
                _, ended = row.done.result()
                reason = "stop" if ended else "length"
            else:
                so_far.append(token)
            shown = so_far[:-1] if reason == "stop" else so_far
            text = self.tokenizer.decode([t.id for t in shown], skip_special_tokens=True)
            if reason is None and (token is None or token.id in self.ends or text.endswith("\ufffd")):
                continue  # characters of several tokens come whole, and what ends an answer is no text
            piece: dict[str, Any] = {"index": place, "finish_reason": reason, "logprobs": None}
            new = text[len(said[place]) :]
            piece |= {"delta": {"content": new} if new or reason is None else {}} if chat else {"text": new}
            if row.top is not None:
                fresh = shown[sent[place] :]
                piece["logprobs"] = self._chat_logprobs(fresh) if chat else self._logprobs(fresh)
            if with_ids:
                piece["token_ids"] = [t.id for t in so_far[sent[place] :]]
                piece |= {} if chat or sent[place] else {"prompt_token_ids": row.prompt}
            said[place], sent[place] = text, len(so_far)
            yield head | {"choices": [piece]}
        if self.says_usage and (body.get("stream_options") or {}).get("include_usage"):
            yield head | {"choices": [], "usage": _usage(rows[0].prompt, sum(map(len, tokens)))}

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{os.urandom(8).hex()}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.name}

    def _known(self, body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name not in self.ignores}

    def _is_begun(self, body: dict[str, Any]) -> bool:
        """Whether a chat's last message is to be gone on with."""
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return False
        asked = body.get("continue_final_message") is True
        return {"asked": asked, "prefix": last.get("prefix") is True, "always": True, "never": False}[self.goes_on]

    def _rows(self, chat: bool, body: dict[str, Any]) -> list[Row]:
        prompt = self._prompt(chat, body)
        count = _number(body, "n", 1, int, 1, _MOST_SAMPLES) if self.knows_n else 1
        top = self._alternatives(chat, body)
        seed = body.get("seed")
        if seed is not None and type(seed) is not int:
            raise BadRequest("seed must be an integer")
        limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
        echo = not chat and bool(body.get("echo"))
        asked: int | None = body.get("prompt_logprobs")
        reads = asked is not None or (echo and top is not None)
        beside = _number(body, "prompt_logprobs", 0, int, 0, _MOST_LISTED) if asked is not None else top or 0
        named = self._tokens(body.get("logprob_token_ids") or [], "logprob_token_ids") if top is not None else []
        bias = self._bias(body.get("logit_bias") or {})
        return [
            Row(
                prompt,
                max_tokens=max(1, _number(body, limit, 256 if chat else 16, int, 0 if echo else 1, 100_000)),
                temperature=_number(body, "temperature", 1.0, float, 0.0, 100.0),
                top_p=_number(body, "top_p", 1.0, float, 1e-9, 1.0),
                seed=None if seed is None else seed * _MOST_SAMPLES + place,
                top=top,
                read=[] if reads else None,
                beside=beside,
                bias=bias,
                named=named,
            )
            for place in range(count)
        ]

    def _prompt(self, chat: bool, body: dict[str, Any]) -> list[int]:
        if body.get("model") != self.name:
            raise BadRequest(f"the model {body.get('model')!r} does not exist; this server has {self.name!r}")
        if not chat:
            text = body.get("prompt")
            if isinstance(text, list) and text:
                return self._tokens(text, "prompt")
            if not isinstance(text, str) or not text:
                raise BadRequest("prompt must be a string or a list of token ids, and not empty")
            ids: list[int] = self.tokenizer(text).input_ids
            return ids
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise BadRequest("messages must be a list of objects with role and content, both strings")
        if not self.tokenizer.chat_template:
            raise BadRequest("this model has no chat template; use /v1/completions")
        ending = "continue_final_message" if self._is_begun(body) else "add_generation_prompt"
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **{ending: True})
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _tokens(self, given: Any, name: str) -> list[int]:
        """Token ids of a request."""
        if not isinstance(given, list) or not all(type(token) is int and 0 <= token < self.size for token in given):
            raise BadRequest(f"{name} must hold token ids below {self.size}")
        return given

    def _bias(self, given: Any) -> dict[int, float]:
        """A bias by tokens, which can't be larger than 100."""
        if not isinstance(given, dict) or not all(name.isdecimal() for name in given):
            raise BadRequest("logit_bias must be an object with a number for each token id")
        self._tokens([int(name) for name in given], "logit_bias")
        return {int(name): min(100.0, max(-100.0, float(value))) for name, value in given.items()}

    def _alternatives(self, chat: bool, body: dict[str, Any]) -> int | None:
        wanted = body.get("logprobs") if chat else body.get("logprobs") is not None
        top: int = _number(body, "top_logprobs" if chat else "logprobs", 0, int, 0, _MOST_ALTERNATIVES)
        return top if wanted else None

    def _choice(
        self, chat: bool, index: int, tokens: list[Token], ended: bool, top: int | None, by_ids: bool
    ) -> dict[str, Any]:
        shown = tokens[:-1] if ended else tokens
        text = self.tokenizer.decode([token.id for token in shown], skip_special_tokens=True)
        choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if ended else "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if top is not None:
            # Even where the answer ends at once, the end stands among them.
            noted = shown or tokens
            choice["logprobs"] = self._chat_logprobs(noted, by_ids) if chat else self._logprobs(noted, by_ids)
        return choice

    def _prompt_logprobs(self, row: Row) -> list[Any]:
        """As vLLM has it: nothing for the first token, of each other one itself first and then those likely there."""
        entries: list[Any] = [None]
        for own, value, (likely, rank) in zip(row.prompt[1:], row.read or [], row.listed, strict=True):
            place = {own: (value, rank)} | {
                token: (score, number) for number, (token, score) in enumerate(likely, 1) if token != own
            }
            entries.append(
                {
                    str(token): {
                        "logprob": score,
                        "rank": number,
                        "decoded_token": self.spelling.chat(token, 0.0)["token"],
                    }
                    for token, (score, number) in place.items()
                }
            )
        return entries

    def _echo(self, choice: dict[str, Any], row: Row, written: list[Token]) -> None:
        """A completion with its prompt before it, as OpenAI's older form has it."""
        kept = written[: len(choice["logprobs"]["tokens"])]
        own = zip(row.prompt, [0.0, *(row.read or [])], [[], *(likely for likely, _ in row.listed)], strict=True)
        found = self._logprobs(
            [Token(i, value, list(dict([(i, value), *likely]).items())) for i, value, likely in own] + kept
        )
        found["token_logprobs"][0] = None
        found["top_logprobs"][0] = None
        text = self.tokenizer.decode(row.prompt, skip_special_tokens=True)
        choice |= {"text": text + (choice["text"] if written else ""), "logprobs": found}

    def _chat_logprobs(self, tokens: list[Token], by_ids: bool = False) -> dict[str, Any]:
        spell = _by_id if by_ids else self.spelling.chat
        entries = [spell(t.id, t.logprob) | {"top_logprobs": [spell(*other) for other in t.top]} for t in tokens]
        return {"content": entries}

    def _logprobs(self, tokens: list[Token], by_ids: bool = False) -> dict[str, Any]:
        spell = _name_of if by_ids else self.spelling.word
        words = [spell(token.id) for token in tokens]
        return {
            "tokens": words,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{spell(i): value for i, value in token.top} for token in tokens],
            "text_offset": [sum(map(len, words[:place])) for place in range(len(words))],
        }


class Spelling:
    """The bytes of each token of a byte-level tokenizer (GPT-2's table of printable stand-ins for bytes)."""

    def __init__(self, tokenizer: Any) -> None:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        self._bytes = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
        self._tokenizer = tokenizer
        self._added = set(tokenizer.added_tokens_decoder)

    def raw(self, token: int) -> bytes:
        """The token's bytes."""
        piece: str = self._tokenizer.convert_ids_to_tokens(token) or ""
        if token in self._added or any(c not in self._bytes for c in piece):
            return piece.encode()
        return bytes(self._bytes[c] for c in piece)

    def chat(self, token: int, logprob: float) -> dict[str, Any]:
        """As chat responses have it."""
        raw = self.raw(token)
        return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}

    def word(self, token: int) -> str:
        """As legacy completions have it: bytes that are no text are escaped."""
        raw = self.raw(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _name_of(token: int) -> str:
    """What vLLM writes in place of a token's text where that is asked for."""
    return f"token_id:{token}"


def _by_id(token: int, logprob: float) -> dict[str, Any]:
    name = _name_of(token)
    return {"token": name, "bytes": list(name.encode()), "logprob": logprob}


def _usage(prompt: list[int], written: int) -> dict[str, int]:
    return {
        "prompt_tokens": len(prompt),
        "completion_tokens": written,
        "total_tokens": len(prompt) + written,
    }


def _into(drawn: queue.SimpleQueue[tuple[int, Token | None]], place: int) -> Callable[[Token], None]:
    return lambda token: drawn.put((place, token))


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _number(body: dict[str, Any], name: str, default: Any, kind: type, low: float, high: float) -> Any:
    value = body.get(name, default)
    if value is None:
        value = default
    fits = type(value) is int if kind is int else type(value) in (int, float)
    if not fits or not low <= value <= high:
        raise BadRequest(f"{name} must lie in {low:g} .. {high:g} (got {value!r})")
    return kind(value)


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256
    owner: Server

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        """End connections that clients keep open, so that their threads end."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are no errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        owner = self.server.owner
        if not self._allowed():
            return
        if self.path.rstrip("/") == "/v1/models":
            models = [{"id": owner.name, "object": "model", "created": 0, "owned_by": "dyetrace"}]
            self._send(200, json.dumps({"object": "list", "data": models}).encode())
        else:
            self._refuse(404, f"there is nothing at {self.path}")

    def do_POST(self) -> None:
        owner = self.server.owner
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            self.close_connection = True
            self._refuse(413, "a body with a content-length of at most 10 MB is needed")
            return
        data = self.rfile.read(int(length))
        if not self._allowed():
            return
        try:
            body = json.loads(data)
            if not isinstance(body, dict):
                raise BadRequest("the body must be a JSON object")
        except (ValueError, RecursionError, BadRequest) as error:
            self._refuse(400, str(error))
            return
        with owner.guard:
            owner.received.append(Received(time.monotonic(), self.path, body, owner.under_way))
            fault = owner.next_fault(body)
            owner.under_way += 1
            owner.guard.notify_all()
        try:
            self._answer(owner, body, fault)
        finally:
            with owner.guard:
                owner.under_way -= 1
                owner.guard.notify_all()

    def _answer(self, owner: Server, body: dict[str, Any], fault: Fault | None) -> None:
        if fault is not None and (fault.kind == "held" or fault.until is not None):
            owner.hold(fault.until)
        if fault is not None and fault.kind == "status":
            self._send(fault.status, fault.body, fault.headers)
            return
        if fault is not None and fault.kind == "drop":
            self._drop()
            return
        chat = self.path == "/v1/chat/completions"
        if not chat and self.path != "/v1/completions":
            self._refuse(404, f"there is nothing at {self.path}")
            return
        try:
            if body.get("stream"):
                self._stream(owner.stream(chat, body), fault)
                return
            response = owner.serve(chat, body)
        except BadRequest as error:
            self._refuse(400, str(error))
            return
        if fault is not None and fault.kind == "late drop":
            self._drop()
            return
        self._send(200, json.dumps(response).encode())

    def _stream(self, pieces: Iterator[dict[str, Any]], fault: Fault | None) -> None:
        """Send server-sent events, in chunks; a client that goes away is noted."""
        owner = self.server.owner
        kind = None if fault is None else fault.kind
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                choice = (piece["choices"] or [{}])[0]
                if kind == "late drop" and choice.get("finish_reason"):
                    self._drop()
                    return
                self._chunk(b"data: " + json.dumps(piece).encode() + b"\n\n")
                if kind == "pause" and (choice.get("text") or (choice.get("delta") or {}).get("content")):
                    owner.hold(None)
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:
            self.close_connection = True
            with owner.guard:
                owner.left += 1
                owner.guard.notify_all()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _allowed(self) -> bool:
        wanted = self.server.owner.api_key
        given = self.headers.get("authorization", "")
        if wanted is None or hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode()):
            return True
        self._refuse(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}.", "invalid_api_key")
        return False

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self._send(status, json.dumps({"error": error}).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@click.command(help=__doc__)
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--name", default="student", show_default=True, help="The model's name in requests.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--batch", default=16, show_default=True, help="Samples drawn together at most.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.")
@click.option("--api-key-variable", help="Environment variable with the API key to ask for.")
def main(
    model_dir: Path, port: int, name: str, dtype: str, batch: int, threads: int | None, api_key_variable: str | None
) -> None:
    import torch

    from watermark.models.folder import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    api_key = None if api_key_variable is None else os.environ[api_key_variable]
    model, tokenizer = load_model(model_dir, dtype)
    with Server(model, tokenizer, name=name, port=port, api_key=api_key, largest_batch=batch) as server:
        click.echo(f"serving {model_dir} as {name!r} at {server.url}; Ctrl-C ends it", err=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
