#!/usr/bin/env bash
# transformers 5.24.0: AutoModelForCausalLM loads models that look ahead, without an error.
#
# Llama's configuration with "is_causal": false, Gemma 3's with "use_bidirectional_attention": true, and XLNet's default
# are loaded by AutoModelForCausalLM.from_pretrained, and their "next-token" predictions at a place move when only LATER
# tokens change. Llama says nothing at all. Whoever scores text by such a model (perplexity, membership, watermark
# tests) reads each token's probability after the model has seen the token itself.
#
# Seen with transformers 5.24.0 and torch 2.13.0, Python 3.11: the largest change of a log-probability before the changed
# token is 0 for the plain Llama and far from 0 for the three others. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, XLNetConfig

transformers.logging.set_verbosity_warning()
small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
kinds = {
    "llama": LlamaConfig(vocab_size=100, **small),
    "llama, is_causal false": LlamaConfig(vocab_size=100, is_causal=False, **small),
    "gemma3, use_bidirectional_attention": Gemma3TextConfig(
        vocab_size=100, head_dim=8, use_bidirectional_attention=True, **small
    ),
    "xlnet": XLNetConfig(vocab_size=100, d_model=32, n_layer=2, n_head=4, d_inner=64),
}
moved = {}
for name, config in kinds.items():
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained("model")
    model = AutoModelForCausalLM.from_pretrained("model").eval()
    ids = torch.randint(5, 100, (1, 24))
    other = ids.clone()
    other[0, 12:] = torch.randint(5, 100, (12,))
    with torch.inference_mode():
        one, two = (model(input_ids=x).logits.log_softmax(-1)[0, :12] for x in (ids, other))
    moved[name] = float((one - two).abs().max())
    print(f"{name}: predictions before the changed tokens move by {moved[name]:.2g} nats at most")
plain = moved.pop("llama")
assert plain < 1e-6, plain
assert all(value > 1e-5 for value in moved.values()), moved
PY
