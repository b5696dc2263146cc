#!/usr/bin/env bash
# transformers 5.24.0: YoutuForCausalLM.from_pretrained sets the padding token's embedding to zero, without a word.
#
# Its _init_weights writes init.zeros_(module.weight.data[padding_idx]). The guard that keeps loaded weights from being
# initialised again stands on the parameter, and .data[...] is a new tensor without it, so the row that was read from
# the file is overwritten. The loading report lists nothing. With tied embeddings the head's row goes with it: the
# model's predictions are not those that were saved.
#
# Seen with transformers 5.24.0 and torch 2.13.0, Python 3.11. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import torch
from transformers import AutoModelForCausalLM, YoutuConfig, YoutuForCausalLM

small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
heads = dict(kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16)
model = YoutuForCausalLM(YoutuConfig(vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, **small, **heads))
model.eval().model.embed_tokens.weight.data[0] = 1.0
model.save_pretrained("model")
again, report = AutoModelForCausalLM.from_pretrained("model", output_loading_info=True)
row = again.model.embed_tokens.weight[0]
print(f"saved as ones, loaded as {row.unique().tolist()}; {report}")
assert torch.equal(row, torch.zeros_like(row)) and not any(report.values())
PY
