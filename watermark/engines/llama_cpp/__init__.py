"""The hook in llama-cpp-python: a `Llama` that marks, and that package's own HTTP server around it."""

from watermark.engines.llama_cpp.llama import MarkedLlama

__all__ = ["MarkedLlama"]
