"""Rows of weights, and what is known of their inputs, to the bytes of a type: one encoder per device."""

from gguf_golf.encode.encoder import DEVICES, Encoder, open_encoder, round_trip
from gguf_golf.encode.guide import Guidance, Guide

__all__ = ["DEVICES", "Encoder", "Guidance", "Guide", "open_encoder", "round_trip"]
