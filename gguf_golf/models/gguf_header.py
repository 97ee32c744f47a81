"""A GGUF header as bytes: what gguf-py would write before the data."""

import io

import gguf


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
