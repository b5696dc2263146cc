"""Generates with dyetrace's hook in vLLM's V2 runner on a CPU; run as a program of its own by test_vllm.py.

python -m tests.watermark.engines.vllm.second_runner MODEL JOB.json ANSWERS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.native_vllm_generate import stand_in


def main(model: str, job: str, answers: str) -> None:
    """Serve the job's requests and write what came of them."""
    stand_in()
    from vllm import LLM, SamplingParams

    asked = json.loads(Path(job).read_text())
    native = {"algorithm": "gumbel", "key": 1234567}
    engine = LLM(
        model,
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=4,
        block_size=32,
        kv_cache_memory_bytes=1 << 26,
        max_logprobs=-1,
        watermark_config=native,  # beside ours
    )
    assert engine.llm_engine.vllm_config.use_v2_model_runner
    params = [SamplingParams(detokenize=False, logprobs=-1, **each["params"]) for each in asked]
    outputs = engine.generate([{"prompt_token_ids": each["prompt"]} for each in asked], params, use_tqdm=False)
    found = [
        {
            "prompt_token_ids": list(output.prompt_token_ids),
            "samples": [
                {
                    "token_ids": list(sample.token_ids),
                    "logprobs": [{token: entry.logprob for token, entry in row.items()} for row in sample.logprobs],
                }
                for sample in output.outputs
            ],
        }
        for output in outputs
    ]
    Path(answers).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
