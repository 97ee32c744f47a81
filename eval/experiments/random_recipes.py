"""Question: does the sum of single tensors' predicted damages predict the damage of a whole file?

Draws random recipes (each tensor a random type, around a random mean rate), predicts each one's KL divergence from the
sensitivity file, and measures it with all tensors disturbed at once in memory. Prints Spearman's rank correlation and
the additivity error. Weights as they come back from each type are kept in a folder, so that a run can be resumed.

    python eval/experiments/random_recipes.py BASE.gguf SENSITIVITY.json TEXT FOLDER --recipes 30
"""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from gguf_golf.encode import Guide, open_encoder
from gguf_golf.files import write_text
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.plan.candidates import Choice, tensor_damage
from gguf_golf.sensitivity import distortion, result
from gguf_golf.sensitivity.probe import Probe

# ours and mainline's, from two to six bits
PALETTE = ("tcq2", "q2_k", "iq3_xxs", "tcq3", "q3_k", "tcq4", "q4_k", "q6_k")


def draw(rng: np.random.Generator, widths: dict[str, int]) -> dict[str, str]:
    """A type for each tensor, by name, that its rows allow: random, but more often near this recipe's own mean rate."""
    bpw = np.array([quant_types.get(name).bpw for name in PALETTE])
    weights = np.exp(-np.abs(bpw - rng.uniform(2.1, 5.0)))
    drawn = {name: str(rng.choice(PALETTE, p=weights / weights.sum())) for name in widths}
    return {name: quant_types.type_for_row(wanted, widths[name])[0].name for name, wanted in drawn.items()}


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("sensitivity", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--recipes", default=30, show_default=True)
@click.option("--chunks", default=8, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(base: Path, sensitivity: Path, text: Path, folder: Path, recipes: int, chunks: int, threads: int) -> None:
    """Print a table of predicted and measured damage and write random-recipes.json into FOLDER."""
    known = result.read(sensitivity)
    # weights alone are disturbed here; activations stay exact
    known = replace(known, tensors=[replace(tensor, rounding={}) for tensor in known.tensors])
    model = open_model(base)
    assert known.imatrix is not None
    guide, encoder = Guide.open(sensitivity.parent / known.imatrix, None), open_encoder("cpu", threads)
    widths = {tensor.name: tensor.shape[-1] for tensor in known.tensors}
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "random-recipes.json"
    rows = json.loads(out.read_text()) if out.exists() else []

    def stored(name: str, type_name: str) -> np.ndarray:
        kept = folder / f"{name}.{type_name}.npy"
        if not kept.exists():
            rows = distortion.whole(model.tensor(name), guide)
            np.save(kept, distortion.decoded(rows, quant_types.get(type_name), encoder).astype(np.float16))
        return np.load(kept).astype(np.float32)

    rng = np.random.default_rng(2024)
    drawn = [draw(rng, widths) for _ in range(recipes)]
    with Probe(base, text, n_ctx=512, n_chunks=chunks, scratch=folder / "base", threads=threads) as probe:
        probe.run_base(lambda chunk, node, ask: False)
        for types_of in tqdm(drawn[len(rows) :], initial=len(rows), total=recipes, desc="recipes"):
            with ExitStack() as stack:
                for name, type_name in types_of.items():
                    stack.enter_context(probe.disturbed(name, stored(name, type_name)))
                measured = float(probe.kld().mean())
            parts = [
                tensor_damage(known, name, Choice(quant_types.get(type_name))) for name, type_name in types_of.items()
            ]
            rows.append({"predicted": sum(parts), "measured": measured})
            write_text(out, json.dumps(rows, indent=1) + "\n")
    predicted = np.array([row["predicted"] for row in rows])
    measured = np.array([row["measured"] for row in rows])
    ratio = predicted / measured
    print(f"{len(rows)} recipes, measured KLD {measured.min():.4f} to {measured.max():.4f}")
    print(f"Spearman {spearmanr(predicted, measured).statistic:.4f}")
    print(f"predicted / measured: median {np.median(ratio):.3f}, from {ratio.min():.3f} to {ratio.max():.3f}")
    print(f"additivity error after that one factor: {np.std(np.log(ratio)):.3f} (standard deviation of the logarithm)")


if __name__ == "__main__":
    main()
