"""Architectures that convert without torch, one module each; importing this package registers them all."""

from gguf_golf.models.families import gemma, gpt_oss, llama, mixture, qwen, smollm
from gguf_golf.models.families.registry import Family, class_names, family_of

__all__ = ["Family", "class_names", "family_of", "gemma", "gpt_oss", "llama", "mixture", "qwen", "smollm"]
