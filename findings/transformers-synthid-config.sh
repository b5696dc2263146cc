#!/usr/bin/env bash
# transformers 5.24.0: a generation configuration saved with SynthID's watermark can't be loaded any more.
#
# GenerationConfig(watermarking_config=SynthIDTextWatermarkingConfig(...)).save_pretrained writes the fields of SynthID
# and no name of the class. GenerationConfig.from_pretrained takes every such entry for a WatermarkingConfig (the green
# list's) and fails: TypeError. A model that was saved with it (model.generation_config) can't be loaded either, by
# AutoModelForCausalLM.from_pretrained, until the entry is taken out of generation_config.json by hand.
#
# Seen with transformers 5.24.0 and torch 2.13.0, Python 3.11. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    SynthIDTextWatermarkingConfig,
    WatermarkingConfig,
)

GenerationConfig(watermarking_config=WatermarkingConfig()).save_pretrained("green")
assert GenerationConfig.from_pretrained("green").watermarking_config == WatermarkingConfig()  # this one can be loaded
small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=100, **small))
model.generation_config.watermarking_config = SynthIDTextWatermarkingConfig(keys=[1, 2, 3], ngram_len=5)
model.save_pretrained("synthid")
for load in (GenerationConfig.from_pretrained, AutoModelForCausalLM.from_pretrained):
    try:
        load("synthid")
    except TypeError as error:
        print(f"{load.__qualname__}: {error}")
    else:
        raise SystemExit("it was loaded")
PY
