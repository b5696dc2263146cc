"""The hook in vLLM: what names the processor at start-up, the processor, and the two model runners that call it."""
