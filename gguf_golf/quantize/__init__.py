"""Tensors and a type for each of them into a GGUF file: streaming, resumable, the same bytes for any thread count."""
