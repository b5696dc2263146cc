#!/usr/bin/env bash
# transformers 5.24.0: a GGUF file's scaling of positions is dropped without a word.
#
# For architectures of the older loader (llama and others), AutoModelForCausalLM.from_pretrained(gguf_file=...) reads
# neither the metadata llama.rope.scaling.* nor the tensor rope_freqs.weight, by which llama.cpp's converter keeps the
# scaling of Llama 3.1 and later. The model that is loaded has plain rotary positions, so its predictions are not those
# of the file, and the loading report lists nothing.
#
# Seen with transformers 5.24.0, torch 2.13.0 and gguf 0.19.0, Python 3.11. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0 gguf==0.19.0 accelerate
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

out = gguf.GGUFWriter("model.gguf", "llama")
out.add_context_length(128)
out.add_embedding_length(32)
out.add_block_count(1)
out.add_feed_forward_length(64)
out.add_head_count(2)
out.add_head_count_kv(2)
out.add_layer_norm_rms_eps(1e-6)
out.add_rope_freq_base(10000.0)
out.add_rope_dimension_count(16)
out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
out.add_rope_scaling_factor(4.0)
out.add_vocab_size(100)
out.add_tokenizer_model("llama")
pieces = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(97))]
out.add_token_list(pieces)
out.add_token_scores([0.0] * 100)
out.add_token_types([2, 3, 3, *[1] * 97])
draw = np.random.default_rng(0)
shapes = {"token_embd": (100, 32), "output": (100, 32), "output_norm": (32,), "blk.0.attn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
shapes |= {"blk.0.ffn_norm": (32,), "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
shapes |= {"rope_freqs": (8,)}
for name, shape in shapes.items():
    out.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
model, report = AutoModelForCausalLM.from_pretrained(
    ".", gguf_file="model.gguf", dtype=torch.float32, output_loading_info=True
)
print(model.config.rope_parameters, report)
assert model.config.rope_parameters["rope_type"] == "default" and not any(report.values())
PY
