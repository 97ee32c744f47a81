"""The last look before success is said: llama.cpp loads the file, decodes a token, and tokenizes as the source does."""

from pathlib import Path
from tempfile import TemporaryDirectory

from gguf_golf.container.metadata import output_metadata
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import Model
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import write
from gguf_golf.runtime.apart import ask_apart


def check_loads(path: Path, model: Model, source: Path | None = None) -> list[str]:
    """Load the file that was just written of `model`, decode one token, and return what a user should be told.

    Where `source` is a checkpoint, texts must become the tokens that its tokenizer makes of them. A file that fails is
    renamed to NAME.broken. Raises InputError if llama.cpp cannot load it or decode with it, or computes numbers that
    are not finite; where the source's own weights make it do so, that is a note, and so are other tokens.
    """
    found = _examine(path, source if source is not None and source.is_dir() else None)
    if found.get("overflow") and not _overflows(model, path.parent):
        found["error"] = f"{found['overflow']}, which the source's own weights do not do: give it larger types"
    if "error" in found:
        broken = path.with_name(path.name + ".broken")
        path.replace(broken)
        raise InputError(f"{path} was written, but does not run; it is now {broken.name}: {found['error']}")
    notes = [found["tokens"]] if "tokens" in found else []
    if "overflow" in found:
        notes.append(
            f"WARNING: {found['overflow']}; the source's own weights in F32 do that too, so llama.cpp cannot run it"
        )
    return notes


def _overflows(model: Model, folder: Path) -> bool:
    """Whether the model's own weights, as F32, make llama.cpp compute numbers that are not finite."""
    chosen = dict.fromkeys((tensor.name for tensor in model.tensors), quant_types.get("f32"))
    with TemporaryDirectory(dir=folder, prefix=".") as temporary:
        path = Path(temporary) / "source.gguf"
        tensors = stored_tensors(model, chosen, Guide(), open_encoder())
        write(tensors, path, metadata=output_metadata(model, chosen, None, None), made_from=None, progress=False)
        return "overflow" in _examine(path)


def _examine(path: Path, checkpoint: Path | None = None) -> dict[str, str]:
    """What examine.py finds: "error" says why llama.cpp cannot run the file, "overflow" which logits are not finite,
    "tokens" what is wrong with its tokens."""
    return ask_apart("gguf_golf.quantize.examine", path, *([checkpoint] if checkpoint else []))
