"""What the activations of a model look like: E[x^2] and peaks per input channel of every linear layer."""
