"""`python -m gguf_golf` is `gguf-golf`."""

from gguf_golf.cli import main

if __name__ == "__main__":
    main()
