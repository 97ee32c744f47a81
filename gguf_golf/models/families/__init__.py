"""Architectures that convert without torch, one module each; importing this package registers them all."""

from gguf_golf.models.families import llama, mixture, qwen
from gguf_golf.models.families.registry import Family, class_names, family_of

__all__ = ["Family", "class_names", "family_of", "llama", "mixture", "qwen"]
