"""Training after quantization: the same format and size, with content that keeps the model's predictions."""
