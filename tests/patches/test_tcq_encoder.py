"""The TCQ encoder: the same bytes for every instruction set, near-optimal paths, and no trap in odd rows.

What it writes is always read by the NumPy decoder. Paths are compared with exact dynamic programming over all states
and all seams, written here from the code's definition.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from gguf_golf.encode import feedback
from gguf_golf.formats import quant_types, tcq
from gguf_golf.models import open_model
from gguf_golf.runtime import ggml, source

HERE = Path(__file__).parent
ARM_CC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FORMATS = list(quant_types.TCQ_FORMATS.items())

GAUSSIAN_DB = {
    **{"tcq1": 6.06, "tcq2": 12.01, "tcq3": 17.95, "tcq4": 23.95, "tcq5": 29.9},
    **{"tcq1_64": 6.16, "tcq2_64": 12.17, "tcq3_64": 18.15, "tcq4_64": 24.15, "tcq5_64": 30.1},
}
"""Signal to noise that unit Gaussians reach; measured 0.1 dB higher, blocks vary."""


def decode(name: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of bytes through the NumPy decoder."""
    fmt = quant_types.TCQ_FORMATS[name]
    return tcq.dequantize(fmt, data.reshape(-1, fmt.type_size)).reshape(len(data), -1)


def encode(name: str, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Rows through the C encoder and the NumPy decoder."""
    return decode(name, ggml.quantize(quant_types.get(name).id, rows, importance, 2))


def db(x: NDArray[np.float32], y: NDArray[np.float32], w: NDArray[np.float32] | float = 1.0) -> float:
    """Signal to noise in dB, weighted by column."""
    return float(10 * np.log10(np.sum(w * x.astype(float) ** 2) / np.sum(w * (x.astype(float) - y) ** 2)))


def build(compiler: str, folder: Path, *flags: str) -> Path:
    """The driver beside this file, compiled with the encoder."""
    tree = source.source_dir() / "ggml"
    program = folder / f"encoder-{compiler}"
    files = [tree / "src" / f"ggml-tcq{part}.c" for part in ("", "-encode", "-feedback", "-trellis")]
    include = (f"-I{tree / part}" for part in ("include", "src"))
    command = [compiler, "-std=gnu11", "-O2", "-ffp-contract=off", *flags, *include, HERE / "tcq_encoder.c", *files]
    subprocess.run([*command, "-o", program, "-lm"], check=True)
    return program


@pytest.fixture(scope="module")
def cases() -> bytes:
    """Rows with outliers, uneven importance and a Hessian with correlations, in every type."""
    rng = np.random.default_rng(0)
    parts: list[bytes] = []
    for name, fmt in FORMATS:
        k = 2 * fmt.block_size
        rows = rng.standard_t(3, (3, k)).astype(np.float32)
        x = rng.standard_normal((400, k)) @ rng.standard_normal((k, k)) / k**0.5
        answer = feedback.factor_hessian(x.T @ x / len(x), fmt.block_size)
        parts.append(np.array([quant_types.get(name).id, *rows.shape], np.int32).tobytes())
        parts += [rows.tobytes(), rng.gamma(0.3, 1.0, k).astype(np.float32).tobytes()]
        parts += [a.tobytes() for a in (answer.block_weights, answer.section_weights, answer.propagation)]
    return b"".join(parts)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_same_bytes_for_every_instruction_set(cases: bytes, tmp_path: Path) -> None:
    result = subprocess.run([build("cc", tmp_path)], input=cases, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    tried = set(result.stderr.split())
    if os.uname().machine == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text():
        assert {b"0", b"1"} <= tried
    if shutil.which(ARM_CC) is None or shutil.which(QEMU) is None:
        pytest.skip(f"needs {ARM_CC} and {QEMU} to compare with Arm")
    arm = subprocess.run([QEMU, build(ARM_CC, tmp_path, "-static")], input=cases, capture_output=True, check=False)
    assert arm.returncode == 0, arm.stderr
    assert arm.stdout == result.stdout
    assert set(arm.stderr.split()) == {b"0", b"1"}


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_gaussian_rate_distortion(name: str) -> None:
    rows = np.random.default_rng(1).standard_normal((24, 1024)).astype(np.float32)
    assert db(rows, encode(name, rows)) > GAUSSIAN_DB[name]


@pytest.mark.parametrize("name", ["tcq2", "tcq3", "tcq2_64", "tcq3_64"])
def test_real_weights(name: str, tiny_dir: Path) -> None:
    by_name = {tensor.name: tensor for tensor in open_model(tiny_dir).tensors}
    for part in ("attn_v", "ffn_up"):
        rows = by_name[f"blk.1.{part}.weight"].load_rows(0, 24)
        if rows.shape[1] % quant_types.get(name).block_size == 0:
            assert db(rows, encode(name, rows)) > GAUSSIAN_DB[name] - 0.5


def best_cycle_cost(rate: int, x: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """The least weighted squared error of any cyclic path for targets x (level units) in chain order."""
    levels = np.array(tcq.LEVELS[rate], float).reshape(-1, 1 << tcq.N_PARITIES)
    step = np.square(x[:, None, None] - levels).min(1) * w[:, None]
    subset = tcq.subset_table().astype(int)
    state = np.arange(256)
    cost = np.where(np.eye(256, dtype=bool), 0.0, np.inf)  # [seam, state]
    for at_step in step:
        zero = cost[:, state >> 1] + at_step[subset[state]]
        one = cost[:, (state >> 1) + 128] + at_step[subset[state + 256]]
        cost = np.minimum(zero, one)
    return float(cost.diagonal().min())


@pytest.mark.parametrize(("name", "n_blocks", "loss"), [("tcq2", 4, 1.004), ("tcq3_64", 12, 1.01), ("tcq4", 4, 1.004)])
def test_paths_are_nearly_optimal(name: str, n_blocks: int, loss: float) -> None:
    """Given the scale and the slots that it chose, no path is much better than the encoder's."""
    rng = np.random.default_rng(2)
    fmt = quant_types.TCQ_FORMATS[name]
    rows = rng.standard_normal((n_blocks, fmt.block_size)).astype(np.float32)
    importance = rng.gamma(2.0, 1.0, fmt.block_size).astype(np.float32)
    data = ggml.quantize(quant_types.get(name).id, rows, importance, 1)
    order = tcq.chain_order(fmt.block_size)
    scale = tcq.block_scales(fmt, data).astype(float)[:, None]
    whole = tcq.integer_weights(fmt, data)
    levels = np.array(tcq.LEVELS[fmt.rate])[tcq.level_indices(fmt, data)]
    target = rows / scale - (whole - levels)
    ours = np.sum(importance * np.square(target - levels), axis=1)
    best = [best_cycle_cost(fmt.rate, t[order], importance[order].astype(float)) for t in target]
    assert (ours >= np.array(best) * (1 - 1e-5)).all()  # the other search is exact, so nothing beats it
    assert ours.sum() <= loss * sum(best)


@pytest.mark.parametrize("name", ["tcq2", "tcq3_64"])
def test_importance(name: str) -> None:
    """Importance is the exact weight of the squared error: all that matters is its ratio, and it pays to know it."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((16, 512)).astype(np.float32)
    importance = rng.gamma(0.4, 1.0, 512).astype(np.float32)
    known = encode(name, rows, importance)
    assert db(rows, known, importance) > db(rows, encode(name, rows), importance) + 0.3
    np.testing.assert_array_equal(known, encode(name, rows, importance * np.float32(1024)))
    ones = np.ones(512, np.float32)
    np.testing.assert_array_equal(encode(name, rows, ones), encode(name, rows))


def test_slots_go_where_three_outliers_are() -> None:
    """At any distances: the block's circle is cut at the widest gap."""
    rng = np.random.default_rng(6)
    rows = np.clip(rng.standard_normal((200, 256)), -2, 2).astype(np.float32)
    outliers = np.array([rng.choice(256, 3, replace=False) for _ in rows])
    outliers[:20] = [0, 100, 200]
    outliers[20:40] = outliers[20:40, :1] + [0, 1, 128] & 255
    np.put_along_axis(rows, outliers, rng.choice(np.float32([-4, 4]), (200, 3)), axis=1)
    fmt = quant_types.TCQ_FORMATS["tcq3"]
    data = ggml.quantize(quant_types.get("tcq3").id, rows)
    positions, _ = tcq.slot_fields(fmt, data)
    assert (np.sort(positions) == np.sort(outliers)).all(1).mean() > 0.98
    assert np.abs(tcq.dequantize(fmt, data) - rows).max() < 0.7


@pytest.mark.parametrize("size", [9.0, 25.0])
def test_two_slots_make_one_great_value(size: float) -> None:
    """With its sign."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((200, 256)).astype(np.float32)
    at, sign = rng.integers(0, 256, 200), rng.choice([-1, 1], 200)
    rows[np.arange(200), at] = size * sign
    fmt = quant_types.TCQ_FORMATS["tcq3"]
    data = ggml.quantize(quant_types.get("tcq3").id, rows)
    positions, choice = tcq.slot_fields(fmt, data)
    values = tcq.slot_values(fmt)[choice]
    great = np.abs(values) > tcq.RATES[3].slot
    carries = great & (positions == at[:, None])
    assert carries.any(1).all()
    assert (np.sign(values[carries]) == sign).all()
    assert db(rows, tcq.dequantize(fmt, data)) > GAUSSIAN_DB["tcq3"]


@pytest.mark.parametrize(("name", "least"), [("tcq2", 15.0), ("tcq3", 19.0), ("tcq5", 25.0)])
def test_two_weights_far_beyond_all_others_are_both_kept(name: str, least: float) -> None:
    """As in the embedding of a token that begins every text."""
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((40, 256)).astype(np.float32) / 50
    for row in rows:
        row[rng.choice(256, 2, replace=False)] = rng.choice((-1, 1), 2) * rng.uniform(0.6, 1.8, 2)
    assert db(rows, encode(name, rows)) > least


def test_a_dominant_channel_does_not_ruin_its_block() -> None:
    """Massive activations give one channel most of all importance; the others must not be left to chance."""
    rows = np.random.default_rng(4).standard_normal((32, 256)).astype(np.float32)
    importance = np.ones(256, np.float32)
    importance[77] = 60000.0
    others = importance == 1.0
    got = encode("tcq3", rows, importance)
    assert db(rows[:, others], got[:, others]) > 16.5
    assert db(rows[:, ~others], got[:, ~others]) > 35.0


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_odd_rows(name: str) -> None:
    rng = np.random.default_rng(5)
    zero = np.zeros(256, np.float32)
    single = zero.copy()
    single[100] = 0.5
    rows = [zero, single, np.full(256, 0.02, np.float32), rng.standard_normal(256).astype(np.float32) * 1e-12]
    got = encode(name, np.stack(rows))
    np.testing.assert_array_equal(got[0], zero)
    assert np.square(got[1] - single).sum() < 0.2 * 0.25
    assert np.square(got[2] - 0.02).sum() < 0.3 * 256 * 0.02**2
    np.testing.assert_array_equal(got[3], zero)  # below the least scale
    dead = np.zeros(256, np.float32)
    assert np.isfinite(encode(name, np.stack(rows), dead)).all()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(quant_types.TCQ_FORMATS)),
    rows=arrays.arrays(np.float32, (1, 256), elements=st.one_of(FLOATS, st.floats(-1, 1, width=32)), fill=FLOATS),
    importance=arrays.arrays(np.float32, 256, elements=st.floats(0, 2**20, width=32)),
)
def test_any_finite_row(name: str, rows: NDArray[np.float32], importance: NDArray[np.float32]) -> None:
    """The result is finite, deterministic, and never worse than zeros where the sums fit a float."""
    got = encode(name, rows, importance)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, encode(name, rows, importance))
    w = importance.astype(float)
    energy = np.sum(w * rows.astype(float) ** 2)
    if energy < 1e30:
        assert np.sum(w * (rows.astype(float) - got) ** 2) <= energy * (1 + 1e-5)
