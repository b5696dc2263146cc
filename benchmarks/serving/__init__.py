"""vLLM with dyetrace's hook: what it costs a step, and whether every token over HTTP is the reference's choice.

Both need a Python with vLLM in it (``--python``), beside the one that runs the benchmark: vLLM pins its own packages.
"""
