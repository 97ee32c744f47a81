"""What `gguf-golf plan` starts from, found and checked: the model, its sensitivity file, the imatrix, provenance."""

import os
from dataclasses import dataclass
from pathlib import Path

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.errors import InputError
from gguf_golf.models import Model, open_model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.sensitivity import result
from gguf_golf.sensitivity.result import Sensitivity


@dataclass(frozen=True)
class Inputs:
    """A model with all that is known of it. `source` is the provenance that a recipe states."""

    model: Model
    sensitivity: Sensitivity
    imatrix: Imatrix | None
    source: dict[str, str]


def default_sensitivity(model_path: Path) -> Path:
    """Where `gguf-golf sensitivity MODEL` writes, and `gguf-golf plan MODEL` looks."""
    return model_path.with_suffix(".sensitivity.json")


def load(model_path: Path, sensitivity_path: Path | None, imatrix_path: Path | None, recipe_folder: Path) -> Inputs:
    """Open everything that a plan needs. The imatrix is the one of the sensitivity file unless another place is given.

    Recipes name the imatrix relative to the folder that they lie in. Raises InputError if files do not belong
    together.
    """
    model = open_model(model_path)
    sensitivity_path = sensitivity_path or default_sensitivity(model_path)
    sensitivity = result.read(sensitivity_path)
    if fingerprint(model) != sensitivity.fingerprint:
        raise InputError(f"{sensitivity_path} was measured on another model than {model_path}: measure this one")
    source = {
        "model": model_path.name,
        "fingerprint": sensitivity.fingerprint,
        "sensitivity_sha256": file_sha256(sensitivity_path),
    }
    imatrix = None
    if sensitivity.imatrix is not None:
        imatrix_path = imatrix_path or sensitivity_path.parent / sensitivity.imatrix
        if file_sha256(imatrix_path) != sensitivity.imatrix_sha256:
            raise InputError(f"{imatrix_path} is not the imatrix that {sensitivity_path} was measured with")
        imatrix = imatrix_file.read(imatrix_path)
        source["imatrix"] = Path(os.path.relpath(imatrix_path, recipe_folder)).as_posix()
        source["imatrix_sha256"] = sensitivity.imatrix_sha256 or ""
    if sensitivity.hessian is not None:
        source["hessian"] = Path(
            os.path.relpath(sensitivity_path.parent / sensitivity.hessian, recipe_folder)
        ).as_posix()
        source["hessian_sha256"] = sensitivity.hessian_sha256 or ""
    if sensitivity.text is not None:
        source["text"] = sensitivity.text
        source["text_sha256"] = sensitivity.text_sha256 or ""
    return Inputs(model, sensitivity, imatrix, source)
