"""Generates under vLLM's own mark on a CPU; run by benchmarks/native_vllm.py with the Python that has vLLM.

vLLM's mark needs its V2 model runner, and that needs Triton, which has no CPU backend in what registries hold. So the
kernels run under Triton's interpreter, slowly, and a backend that can do nothing else stands in. One process does it
all: what is registered here would be unknown to a worker.

    python native_vllm_generate.py JOB.json ANSWERS.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "TRITON_INTERPRET": "1",  # read when Triton is imported
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def stand_in() -> None:
    """Register a "cpu" backend, so that vLLM takes Triton for usable; nothing is ever compiled for it."""
    from triton.backends import Backend, backends
    from triton.backends.compiler import BaseBackend, GPUTarget
    from triton.backends.driver import DriverBase

    def nothing(*_: Any) -> Any:
        raise NotImplementedError("only Triton's interpreter runs here")

    driver: Any = type(
        "InterpretedDriver",
        (DriverBase,),
        {
            "is_active": classmethod(lambda cls: True),
            "get_current_target": lambda self: GPUTarget("cpu", 0, 0),
            "map_python_to_cpp_type": nothing,
            "get_active_torch_device": nothing,
            "get_benchmarker": nothing,
        },
    )
    backends["cpu"] = Backend(compiler=BaseBackend, driver=driver)


def main(job_file: str, answers_file: str) -> None:
    """Generate the job's answers; the last of them opts out of the mark."""
    stand_in()
    from vllm import LLM, SamplingParams
    from vllm.v1.watermarking import DualKeyGumbelWatermarkDetector, GumbelWatermarkDetector

    job = json.loads(Path(job_file).read_text())
    mark, start = job["watermark"], time.monotonic()
    engine = LLM(
        job["model"],
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=len(job["prompts"]),
        block_size=32,
        kv_cache_memory_bytes=1 << 28,  # given, so that no profiling run samples from empty logits
        watermark_config=mark,
    )
    ready = time.monotonic()
    last = len(job["prompts"]) - 1
    params = [
        SamplingParams(max_tokens=job["tokens"], temperature=1.0, seed=i, ignore_eos=True, watermarking=i != last)
        for i in range(last + 1)
    ]
    answers = engine.generate(job["prompts"], params, use_tqdm=False)
    done = time.monotonic()
    dual = mark["algorithm"] == "dual_key_gumbel"
    detector = (DualKeyGumbelWatermarkDetector if dual else GumbelWatermarkDetector)(mark["key"])
    with Path(answers_file).open("w") as file:
        for i, answer in enumerate(answers):
            ids = list(answer.outputs[0].token_ids)
            line = {
                "id": f"{'unmarked' if i == last else 'marked'} {i}",
                "text": answer.outputs[0].text,
                "token_ids": ids,
                "prompt_token_ids": list(answer.prompt_token_ids),
                "own_pvalue": detector.detect(ids).p_value,
                "seconds": [ready - start, done - ready],
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
