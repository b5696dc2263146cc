#!/usr/bin/env bash
# transformers 5.24.0: `transformers serve` decodes greedily whatever temperature a request asks for.
#
# A request's "temperature" is put into the generation configuration, but "do_sample" is not, which is false unless the
# model's own generation_config.json says otherwise. So temperature 1.0 (and 2.0) gives the same answer every time, with
# status 200 and no word of it. "n": 2 is taken as well and gives one choice, though the source says of such fields that
# receiving them "raises an error to avoid silent misbehaviour"; a line in the server's log is all there is. Whoever
# draws samples through this server (evaluations with several samples, self-consistency, best-of-n, data for training)
# gets copies of one answer.
#
# Seen with transformers 5.24.0 and torch 2.13.0, Python 3.11, a random Llama of two layers: six requests at temperature
# 1.0 have one answer; with "do_sample": true in generation_config.json they have six. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'transformers[serving]==5.24.0' torch==2.13.0 accelerate
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home"
"$folder/venv/bin/python" - <<'PY'
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate([*alphabet, "<end>"])}, []))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
torch.manual_seed(0)
config = LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=2, bos_token_id=256, eos_token_id=256, pad_token_id=256)
AutoModelForCausalLM.from_config(config).save_pretrained("model")
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
fast.save_pretrained("model")


def answers(count: int, **more: object) -> tuple[list[str], int]:
    """Distinct answers to so many requests at temperature 1, and choices in the last response."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["transformers", "serve", str(Path("model").resolve()), "--device", "cpu", "--port", str(port)]
    server = subprocess.Popen([str(Path(sys.executable).parent / command[0]), *command[1:]])
    asked = {"model": str(Path("model").resolve()), "messages": [{"role": "user", "content": "hello"}]}
    asked |= {"temperature": 1.0, "max_tokens": 12} | more
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    found = []
    try:
        while len(found) < count:
            if server.poll() is not None:
                raise SystemExit("the server ended")
            try:
                with urllib.request.urlopen(request) as response:
                    choices = json.load(response)["choices"]
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(1)
                continue
            found.append(choices[0]["message"]["content"])
    finally:
        server.terminate()
        server.wait()
    return found, len(choices)


as_it_is, choices = answers(6, n=2)
path = Path("model/generation_config.json")
path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": True}))
told, _ = answers(6)
print(f"temperature 1.0: {len(set(as_it_is))} distinct answers of 6; with do_sample in the model's folder {len(set(told))}")
print(f"n = 2: {choices} choice")
assert len(set(as_it_is)) == 1 and len(set(told)) > 1 and choices == 1
PY
