"""A real server that marks: the benchmark's, with the hook's own admission and the transformers hook."""

from __future__ import annotations

import threading
from typing import Any

import torch

from benchmarks.distillation.server import BadRequest, Server
from watermark.engines.hook.admission import Decoding, admit
from watermark.engines.hook.settings import Settings
from watermark.engines.transformers.processor import WatermarkConfig
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec

MASTER = SecretKey(bytes(range(32)))
ACCOUNTS = ("acme", "zenith")


def spec_of(tokenizer: Any, **fields: Any) -> WatermarkSpec:
    """A spec of the key that everybody knows, with accounts unless ``fields`` say otherwise."""
    defaults = {
        "vocabulary_size": vocabulary_size(tokenizer),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "key_fingerprint": MASTER.fingerprint,
        "global_share": 0.5,
    }
    return WatermarkSpec(**{**defaults, **fields})


class MarkingServer(Server):
    """As vLLM with dyetrace's hook: the account in ``vllm_xargs``, token ids on demand, refusals with status 400.

    Parameters
    ----------
    spec
        The watermark; None serves without a hook.
    settings
        Fields of the hook's settings.
    always
        Marks for this account whatever a request says: what a proxy that loses the account looks like.
    lost
        Every so many requests go to a worker that has lost its hook; 0 for none.
    sends_ids
        Whether it knows ``return_token_ids``.
    strict
        Refuses fields that it does not know.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        spec: WatermarkSpec | None,
        *,
        settings: dict[str, Any] | None = None,
        always: str | None = None,
        lost: int = 0,
        sends_ids: bool = True,
        strict: bool = False,
        **options: Any,
    ) -> None:
        self.spec, self.always, self.lost, self.sends_ids, self.strict = spec, always, lost, sends_ids, strict
        self.settings = Settings(spec="-", key="-", **(settings or {}))
        self.model, self.turn, self.served = model, threading.Lock(), 0
        super().__init__(model, tokenizer, **options)

    def serve(self, chat: bool, body: dict[str, Any]) -> dict[str, Any]:
        if self.strict and "return_token_ids" in body:
            raise BadRequest("Unrecognized request argument supplied: return_token_ids")
        prompt = self._prompt(chat, body)
        count, temperature = body.get("n", 1), body.get("temperature", 1.0)
        with self.turn:  # transformers draws from one generator
            self.served += 1
            rows = self._generate(prompt, body, count, temperature)
        wants_ids = bool(body.get("return_token_ids")) and self.sends_ids
        choices = []
        for index, ids in enumerate(rows):
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            choice: dict[str, Any] = {"index": index, "finish_reason": "length"}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append(choice | ({"token_ids": ids} if wants_ids else {}))
            if wants_ids and not chat:
                choices[-1]["prompt_token_ids"] = prompt
        body_of_all: dict[str, Any] = {"model": self.name, "choices": choices}
        return body_of_all | ({"prompt_token_ids": prompt} if wants_ids and chat else {})

    def _generate(self, prompt: list[int], body: dict[str, Any], count: int, temperature: float) -> list[list[int]]:
        greedy = temperature == 0
        mark = None
        if self.spec is not None:
            try:
                extra = body.get("vllm_xargs")
                asked = admit(extra, Decoding(greedy=greedy, samples=count), self.settings, self.spec)
            except DyetraceError as error:
                raise BadRequest(str(error)) from None
            if asked.unmarked is None and not (self.lost and self.served % self.lost == 0):
                tenant = self.always or asked.tenant
                ring = KeyRing.from_master(MASTER, self.spec.epoch, () if tenant is None else (tenant,))
                mark = WatermarkConfig(self.spec, ring, tenants=tenant, subkeys=self._subkeys(body, count))
        if body.get("seed") is not None:
            torch.manual_seed(body["seed"])
        sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": temperature, "top_k": 0}
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=body.get("max_tokens", 16),
                num_return_sequences=count,
                pad_token_id=self.tokenizer.eos_token_id,
                watermarking_config=mark,
                **sampling,
            )
        found: list[list[int]] = output[:, len(prompt) :].tolist()
        return found

    def _subkeys(self, body: dict[str, Any], count: int) -> list[int] | None:
        assert self.spec is not None
        seed = body.get("seed")
        return None if seed is None else [seed % self.spec.subkeys] * count
