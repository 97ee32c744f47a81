"""Question: what does each lever of the TCQ encoder buy, in KL divergence, beyond the noise of the calibration text?

    python eval/experiments/tcq_levers.py BASE.gguf ../shared/data/wikitext-2/wiki.valid.raw FOLDER

A lever is taken away (or a new one added) by changing the encoder's source and compiling it aside. All linear layers of
BASE (BF16) are encoded with the importance of one slice of the text and exchanged in llama.cpp's memory; the KL
divergence is measured on another slice. Three disjoint slices, three seeds; what is compared is the ratio to the
encoder as it is, with the same seed. FOLDER keeps levers.json (a run can be resumed) and table.md.
"""

import ctypes
import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.collect import collect
from gguf_golf.files import write_text
from gguf_golf.formats import quant_types, tcq
from gguf_golf.models import Model, open_model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable
from gguf_golf.runtime import source
from gguf_golf.sensitivity.probe import Probe

FloatArray = NDArray[np.float32]
SOURCES = ("ggml-tcq.c", "ggml-tcq-encode.c", "ggml-tcq-encode.h", "ggml-tcq-trellis.c")
SEEDS, CALIBRATION_CHUNKS = 3, 32
FIT_ROWS, FIT_ROUNDS = 12, 8

DRIVER = r"""
#include "ggml-tcq-encode.h"
#include <stdlib.h>
void ggml_abort(const char * file, int line, const char * format, ...) { (void) file; (void) line; (void) format; abort(); }
void * ggml_aligned_malloc(size_t size) { return aligned_alloc(64, (size + 63)/64*64); }
void ggml_aligned_free(void * p, size_t size) { (void) size; free(p); }

// rows as they come back from a type, with its own levels or others, with slots or with slots that add nothing
void there_and_back(int type, const int8_t * levels, int slots, const float * x, float * y, uint8_t * blocks, int64_t n, int64_t k, const float * importance) {
    static const int16_t nothing[128] = { 0 };
    tcq_format f = *tcq_get_format(type);
    if (levels) { f.levels = levels; }
    if (!slots) { f.slots = nothing; }
    tcq_encode_rows(&f, x, blocks, n, k, importance);
    for (int64_t b = 0; b < n*k/f.block_size; ++b) {
        int16_t w[QK_TCQ];
        tcq_unpack_block(&f, blocks + b*f.type_size, w);
        const float d = tcq_block_scale(&f, blocks + b*f.type_size);
        for (int i = 0; i < f.block_size; ++i) { y[b*f.block_size + i] = d*w[i]; }
    }
}
"""  # noqa: E501


@dataclass(frozen=True)
class Lever:
    """Changes to the encoder's source, (before, after) each; whether levels are fitted to the model; slots or none."""

    changes: tuple[tuple[str, str], ...] = ()
    levels_fitted: bool = False
    slots: bool = True


NO_TRIAL = ("#define TCQ_RANKS       4", "#define TCQ_RANKS       1")
LEVERS = {
    "as it is": Lever(),
    "no neighbouring scales": Lever((("#define TCQ_MOVES       6", "#define TCQ_MOVES       0"),)),
    "no trials of slots": Lever((NO_TRIAL,)),
    "slots by excess": Lever(
        (NO_TRIAL, ("    if (m < TCQ_MAX_LEVEL) {\n", "    if (m < TCQ_MAX_LEVEL) {\n        return 0.0f;\n"))
    ),
    "levels fitted": Lever(levels_fitted=True),
    "no slots": Lever(
        (
            NO_TRIAL,
            ("if (!in_slot[j]) {", "if (true) {"),
            ("rms_scale > slot_scale ? rms_scale : slot_scale", "rms_scale"),
        ),
        slots=False,
    ),
}


@cache
def library(lever: str, folder: Path) -> ctypes.CDLL:
    """The encoder with a lever's changes, compiled in `folder`."""
    tree = source.source_dir() / "ggml"
    sources = {name: (tree / "src" / name).read_text() for name in SOURCES}
    for before, after in LEVERS[lever].changes:
        (changed,) = (name for name, text in sources.items() if before in text)
        sources[changed] = sources[changed].replace(before, after)
    place = folder / lever.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    for name, text in {**sources, "driver.c": DRIVER}.items():
        (place / name).write_text(text)
    command = ["cc", "-std=gnu11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-o", place / "lever.so"]
    include = [f"-I{tree / part}" for part in ("include", "src")]
    subprocess.run([*command, *include, *sorted(place.glob("*.c")), "-lm"], check=True)
    return ctypes.CDLL(str(place / "lever.so"))


def there_and_back(
    lever: str,
    folder: Path,
    kind: quant_types.QuantType,
    rows: FloatArray,
    importance: FloatArray,
    levels: NDArray[np.int8] | None = None,
) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Rows f32 [n, k] as they come back from a type, and the blocks between, uint8 [blocks, type_size]."""
    rows, importance = np.ascontiguousarray(rows), np.ascontiguousarray(importance)
    back = np.empty_like(rows)
    blocks = np.empty((rows.size // kind.block_size, kind.type_size), np.uint8)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (rows, back, blocks)]
    library(lever, folder).there_and_back(
        kind.id,
        None if levels is None else ctypes.c_void_p(levels.ctypes.data),
        LEVERS[lever].slots,
        *pointers,
        *(ctypes.c_int64(n) for n in rows.shape),
        ctypes.c_void_p(importance.ctypes.data),
    )
    return back, blocks


def fitted(
    folder: Path, kind: quant_types.QuantType, samples: Sequence[tuple[FloatArray, FloatArray]]
) -> NDArray[np.int8]:
    """A type's levels, refitted to rows (with their importance) by encoding and centroids in turn."""
    fmt = quant_types.TCQ_FORMATS[kind.name]
    levels = np.array(tcq.LEVELS[fmt.rate], np.int8)
    for _ in range(FIT_ROUNDS):
        sums, weights = np.zeros(len(levels)), np.zeros(len(levels))
        for rows, importance in samples:
            back, blocks = there_and_back("as it is", folder, kind, rows, importance, levels)
            scale = tcq.block_scales(fmt, blocks).astype(float)[:, None]
            index = tcq.level_indices(fmt, blocks)
            x, q = (a.reshape(index.shape).astype(float) for a in (rows, back))
            # the error of a level in units of a layer's energy
            weight = np.tile(importance.astype(float), len(rows)).reshape(index.shape) * scale**2
            weight /= (np.square(rows, dtype=float) * importance).sum()
            target = levels[index] + (x - q) / np.where(scale > 0, scale, 1)
            weights += np.bincount(index.ravel(), weight.ravel(), len(levels))
            sums += np.bincount(index.ravel(), (weight * target).ravel(), len(levels))
        centers = np.where(weights > 0, sums / np.maximum(weights, 1e-30), levels)
        levels = np.round(centers * 63 / np.abs(centers).max()).astype(np.int8)
    return levels


def slices(text: Path, folder: Path) -> list[Path]:
    """The text in SEEDS + 1 equal parts of whole lines: one for each seed, and one to measure on."""
    lines = text.read_bytes().splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    paths = []
    for part in range(SEEDS + 1):
        path = folder / f"text-{part}.txt"
        first, last = (int(np.searchsorted(ends, ends[-1] * p / (SEEDS + 1))) for p in (part, part + 1))
        path.write_bytes(b"".join(lines[first:last]))
        paths.append(path)
    return paths


class Bench:
    """The model, its importance for every seed, and levels that were fitted to it."""

    def __init__(self, base: Path, folder: Path, texts: Sequence[Path], threads: int) -> None:
        self.model: Model = open_model(base)
        self.names = [t.name for t in self.model.tensors if is_quantizable(t) and t.name not in EMBEDDINGS]
        self.folder = folder
        self.importance = []
        for seed, text in enumerate(texts):
            path = folder / f"imatrix-{seed}.gguf"
            if not path.exists():
                imatrix.write(collect(base, text, n_chunks=CALIBRATION_CHUNKS, threads=threads), path)
            self.importance.append(imatrix.read(path))

    @cache  # noqa: B019
    def levels(self, kind: quant_types.QuantType, seed: int) -> NDArray[np.int8]:
        """Fitted to a few rows of every layer."""
        rng = np.random.default_rng(seed)
        samples = []
        for name in self.names:
            rows = self.model.tensor(name).load()
            if kind.divides(rows.shape[1]):
                chosen = rng.choice(len(rows), min(FIT_ROWS, len(rows)), replace=False)
                samples.append((rows[chosen], self.importance[seed].importance(name)[0]))
        return fitted(self.folder, kind, samples)

    def run(self, probe: Probe, lever: str, wanted: str, seed: int) -> tuple[float, float]:
        """Mean KLD in nats, and signal to noise under the importance in dB (mean relative error over the layers)."""
        relative = []
        with ExitStack() as stack:
            for name in self.names:
                rows, importance = self.model.tensor(name).load(), self.importance[seed].importance(name)[0]
                kind, _ = quant_types.type_for_row(wanted, rows.shape[1])
                levels = self.levels(kind, seed) if LEVERS[lever].levels_fitted else None
                back, _ = there_and_back(lever, self.folder, kind, rows, importance, levels)
                relative.append((importance @ np.square(rows - back).sum(0)) / (importance @ np.square(rows).sum(0)))
                stack.enter_context(probe.disturbed(name, back))
            kld = float(probe.kld().mean())
        return kld, float(-10 * np.log10(np.mean(relative)))


@click.command()
@click.argument("base", type=click.Path(path_type=Path, exists=True))
@click.argument("text", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--types", "wanted", default="tcq2,tcq3", show_default=True)
@click.option("--levers", default=",".join(LEVERS), show_default=True)
@click.option("--chunks", default=16, show_default=True, help="To measure on, of 512 tokens.")
@click.option("--threads", default=1, show_default=True, help="For llama.cpp; the encoder takes one.")
def main(base: Path, text: Path, folder: Path, wanted: str, levers: str, chunks: int, threads: int) -> None:
    """Measure what is not in levers.json yet, and print a table."""
    folder.mkdir(parents=True, exist_ok=True)
    *calibration, held_out = slices(text, folder)
    kept = folder / "levers.json"
    found = json.loads(kept.read_text()) if kept.exists() else []
    done = {(row["lever"], row["type"], row["seed"]) for row in found}
    jobs = [(lever, kind, seed) for kind in wanted.split(",") for seed in range(SEEDS) for lever in levers.split(",")]
    bench = Bench(base, folder, calibration, threads)
    with Probe(base, held_out, n_ctx=512, n_chunks=chunks, scratch=folder / "base.logits", threads=threads) as probe:
        probe.run_base(lambda chunk, node, ask: False)
        for lever, kind, seed in jobs:
            if (lever, kind, seed) not in done:
                kld, db = bench.run(probe, lever, kind, seed)
                found.append({"lever": lever, "type": kind, "seed": seed, "kld": kld, "db": db})
                click.echo(json.dumps(found[-1]))
                write_text(kept, "[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")
    click.echo(table(found))


def table(rows: Sequence[dict[str, float | str]]) -> str:
    """Mean over seeds of dB and KLD, and of KLD over that of the encoder as it is, with its range over seeds."""
    of = {(row["lever"], row["type"], row["seed"]): row for row in rows}
    lines = ["| type | lever | dB | KLD | share of the encoder's as it is |", "|---|---|---|---|---|"]
    for lever, kind in dict.fromkeys((row["lever"], row["type"]) for row in rows):
        mine = [row for row in rows if (row["lever"], row["type"]) == (lever, kind)]
        shares = [float(r["kld"]) / float(of["as it is", kind, r["seed"]]["kld"]) for r in mine]
        db, kld = (np.mean([float(r[key]) for r in mine]) for key in ("db", "kld"))
        spread = f"{np.mean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        lines.append(f"| {kind} | {lever} | {db:.2f} | {kld:.4f} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
