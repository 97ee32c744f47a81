"""A GGUF header as bytes: what gguf-py would write before the data."""

import io

import gguf

from gguf_golf.errors import InputError


def header_bytes(writer: gguf.GGUFWriter) -> bytes:
    """The header of a writer that knows its metadata and tensor infos. It only writes to files, so it is handed one in
    memory."""
    buffer = io.BytesIO()
    writer.fout = [buffer]
    writer.state = gguf.gguf_writer.WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return buffer.getvalue()


def check_values(writer: gguf.GGUFWriter, source: object) -> None:
    """Raise InputError, naming `source` and the key, for a value that GGUF cannot hold as the type that its key has.

    Tokens are left out: there are many, and whoever collects them checks them.
    """
    for key, value in writer.kv_data[0].items():
        if key.startswith("tokenizer.ggml."):
            continue
        alone = gguf.GGUFWriter(path=None, arch="")
        alone.kv_data = [{key: value}]
        try:
            header_bytes(alone)
        except Exception as error:  # gguf-py and struct raise what they like
            raise InputError(
                f"{source}: {value.value!r:.60} cannot be stored as {key} ({error}); correct it in config.json, "
                "generation_config.json or the front matter of README.md"
            ) from error
