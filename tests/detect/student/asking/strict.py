"""Small servers that are as strict about a request as the public ones are, with the words that those refuse by."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Refusal = tuple[int, Any]
Judge = Callable[[Body], Refusal | None]

WORDS = "the lamp of a ship at sea may turn with each wave and still the keeper writes down what he has seen".split()


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: Body


@dataclass
class Strict:
    """A running server: its base address, and what came."""

    url: str = ""
    received: list[Asked] = field(default_factory=list)


def takes_all(body: Body) -> Refusal | None:
    """Refuse nothing."""
    return None


def names_one_for_both(body: Body) -> Refusal | None:
    """Refuse either setting by the name of the first, whichever was sent."""
    if "temperature" in body or "top_p" in body:
        return 400, {"error": {"message": "`temperature` is deprecated for this model."}}
    return None


def openai_refuses(param: str, message: str, code: str) -> Refusal:
    """As OpenAI and Azure say it."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return 400, {"error": error}


def reasoning_model(body: Body) -> Refusal | None:
    """As o-series and GPT-5 models refuse."""
    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return openai_refuses("max_tokens", said, "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        said = (
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. Only the "
            "default (1) value is supported."
        )
        return openai_refuses("temperature", said, "unsupported_value")
    for name in ("top_p", "logprobs"):
        if name in body:
            said = f"Unsupported parameter: '{name}' is not supported with this model."
            return openai_refuses(name, said, "unsupported_parameter")
    if body.get("max_completion_tokens", 99) < 8:
        said = (
            "Could not finish the message because max_tokens or model output limit was reached. Please try again with "
            "higher max_tokens."
        )
        return 400, {"error": {"message": said, "type": "invalid_request_error", "param": None, "code": None}}
    return None


def claude(body: Body) -> Refusal | None:
    """As Claude Sonnet 4.5 refuses through OpenAI-compatible layers."""
    if "temperature" in body and "top_p" in body:
        said = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    return None


def claude_of_late(body: Body) -> Refusal | None:
    """As later ones do."""
    if "temperature" in body or "top_p" in body:
        name = "temperature" if "temperature" in body else "top_p"
        return 400, {"message": f"{name} is deprecated for this model."}
    return None


def tgi(body: Body, status: int = 422) -> Refusal | None:
    """As TGI refuses."""
    if not 0 < body.get("top_p", 0.5) < 1:
        return status, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}
    return None


def knows_only(*names: str) -> Judge:
    """As servers with pydantic's extra="forbid" refuse (Mistral): all that they don't know, at once."""

    def judge(body: Body) -> Refusal | None:
        unknown = [name for name in body if name not in ("model", "messages", *names)]
        if not unknown:
            return None
        said = "Extra inputs are not permitted"
        detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": said, "input": 1} for name in unknown]
        return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "code": None}

    return judge


def without_words(body: Body) -> Refusal | None:
    """A server that refuses a temperature, and doesn't say why."""
    return (400, {"error": "Bad Request"}) if "temperature" in body else None


def written(length: int, seed: int) -> str:
    """An answer, no two alike."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(length))


def reply(body: Body, number: int) -> Body:
    """An answer of a few words; its tokens are counted as words."""
    limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 30)
    texts = [written(min(limit, 30), 100 * number + place) for place in range(body.get("n", 1))]
    message = "message" if "messages" in body else "text"
    choices = [
        {"index": place, "finish_reason": "stop", message: {"content": text} if message == "message" else text}
        for place, text in enumerate(texts)
    ]
    completion = sum(len(text.split()) for text in texts)
    return {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": completion}, "model": "m"}


def first_counted(body: Body, number: int) -> Body:
    """The same as llama-server counts it: the first of several answers alone."""
    found = reply(body, number)
    first = found["choices"][0]
    words = (first["message"]["content"] if "message" in first else first["text"]).split()
    return found | {"usage": {"prompt_tokens": 9, "completion_tokens": len(words)}}


@contextmanager
def strict(
    judge: Judge = takes_all,
    *,
    path: str = "/v1/chat/completions",
    key: tuple[str, str] | None = None,
    answer: Callable[[Body, int], Body] = reply,
) -> Iterator[Strict]:
    """Serve at one path alone, with its query, and to whoever shows the key in the header that it belongs in."""
    found = Strict()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.received.append(Asked(self.path, headers, body))
            if self.path != path:
                self._send(404, {"error": {"code": "404", "message": "Resource not found"}})
            elif key is not None and headers.get(key[0]) != key[1]:
                self._send(401, {"error": {"code": "401", "message": f"Access denied due to {headers.get(key[0])}"}})
            else:
                refusal = judge(body)
                self._send(*(refusal or (200, answer(body, len(found.received)))))

        def do_GET(self) -> None:
            self._send(404, {"error": {"code": "404", "message": "Resource not found"}})

        def _send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
