"""A finished file in everyday use: chat with it, serve it, run llama.cpp's programs on it."""
