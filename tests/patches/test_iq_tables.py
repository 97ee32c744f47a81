"""The tables of the IQ types look at a grid's points in upstream's order, which is also that of Python's `sorted`."""

import subprocess

import numpy as np
import pytest

from gguf_golf.runtime import source

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "ggml-iq-neighbours.h"

void ggml_abort(const char * file, int line, const char * format, ...) {
    (void) file; (void) line; (void) format;
    abort();
}

int main(int argc, char ** argv) {
    const int n = argc > 1 ? atoi(argv[1]) : 0;
    int * pairs = malloc(2*n*sizeof(int));
    if (fread(pairs, 2*sizeof(int), n, stdin) != (size_t) n) return 1;
    ggml_iq_sort_neighbours(pairs, n);
    fwrite(pairs, 2*sizeof(int), n, stdout);
    free(pairs);
    return 0;
}
"""


@pytest.fixture(scope="module")
def sort(tmp_path_factory):
    folder, ggml = tmp_path_factory.mktemp("iq"), source.source_dir() / "ggml"
    (folder / "sort.c").write_text(PROGRAM)
    flags = ["-std=gnu11", "-O1", "-fsanitize=address,undefined", *(f"-I{ggml / part}" for part in ("include", "src"))]
    subprocess.run(["gcc", *flags, folder / "sort.c", "-o", folder / "sort"], check=True)

    def sorted_in_c(distances):
        pairs = np.stack([distances, np.arange(len(distances))], 1).astype(np.int32)
        done = subprocess.run(
            [folder / "sort", str(len(pairs))], input=pairs.tobytes(), capture_output=True, check=True
        )
        return [tuple(pair) for pair in np.frombuffer(done.stdout, np.int32).reshape(-1, 2).tolist()]

    return sorted_in_c


@pytest.mark.parametrize(("points", "coordinates", "values"), [(256, 8, 4), (2048, 8, 4), (256, 4, 8), (512, 4, 8)])
def test_by_distance_and_then_by_index(sort, points, coordinates, values):
    """Grids of iq2_xxs, iq1_s, iq3_xxs and iq3_s: odd numbers from 1 to 7 or to 15."""
    rng = np.random.default_rng(points)
    grid = 2 * rng.integers(0, values, (points, coordinates)) + 1
    grid[-1] = 2 * values - 1
    distances = np.square(grid - 1).sum(1)  # from the corner: the largest that there is, for the last point
    assert sort(distances) == sorted(zip(distances.tolist(), range(points), strict=True))
