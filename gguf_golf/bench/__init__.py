"""How fast the types are: each by itself (kernels), and in whole models through llama-bench (models)."""
