"""What a quantized model lost: perplexity, KL divergence, tasks, speed, each with its uncertainty."""
