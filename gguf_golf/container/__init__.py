"""The GGUF file that is written: its tensors, its metadata, and where every byte goes."""
