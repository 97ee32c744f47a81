"""Collected statistics: equal to llama-imatrix's, and usable by llama-quantize."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.collect import collect
from gguf_golf.errors import InputError

N_CHUNKS = 3


@pytest.fixture(scope="module")
def collected(tiny: Callable[[str], Path], demo_text: Path) -> imatrix.Imatrix:
    return collect(tiny("bf16"), demo_text, n_ctx=256, n_chunks=N_CHUNKS, threads=2)


def test_equals_llama_imatrix(
    collected: imatrix.Imatrix,
    tiny: Callable[[str], Path],
    demo_text: Path,
    llama_tool: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    out = tmp_path / "theirs.gguf"
    command = [llama_tool("llama-imatrix"), "-m", tiny("bf16"), "-f", demo_text, "-o", out, "-c", "256"]
    subprocess.run([*command, "--chunks", str(N_CHUNKS), "-t", "2"], check=True, capture_output=True)
    theirs = imatrix.read(out)
    assert (theirs.chunk_count, theirs.chunk_size) == (collected.chunk_count, collected.chunk_size)
    assert theirs.entries.keys() == collected.entries.keys()
    for name, entry in theirs.entries.items():
        np.testing.assert_array_equal(collected.entries[name].counts, entry.counts)
        np.testing.assert_allclose(collected.importance(name), theirs.importance(name), rtol=1e-4)


def test_llama_quantize_reads_it(
    collected: imatrix.Imatrix, tiny: Callable[[str], Path], llama_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    imatrix.write(collected, tmp_path / "ours.gguf")
    command = [llama_tool("llama-quantize"), "--imatrix", tmp_path / "ours.gguf", tiny("bf16")]
    done = subprocess.run([*command, tmp_path / "q.gguf", "q3_k_s", "2"], check=True, capture_output=True, text=True)
    assert f"computed on {N_CHUNKS} chunks" in done.stdout + done.stderr


def test_every_linear_layer_and_no_other(collected: imatrix.Imatrix) -> None:
    kinds = {name.split(".")[2] for name in collected.entries}
    assert kinds == {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
    }  # fmt: skip
    assert len(collected.entries) == 4 * 7
    assert all(int(entry.counts[0]) == N_CHUNKS * 256 for entry in collected.entries.values())


def test_peaks_bound_the_mean_squares(collected: imatrix.Imatrix) -> None:
    for name, entry in collected.entries.items():
        assert entry.peak is not None
        mean = collected.importance(name)
        assert (entry.peak**2 >= mean * (1 - 1e-5)).all()
        assert (entry.peak**2 <= entry.in_sum2 * (1 + 1e-5)).all()


def test_the_output_matrix_on_demand(tiny: Callable[[str], Path], demo_text: Path) -> None:
    matrix = collect(tiny("bf16"), demo_text, n_ctx=64, n_chunks=1, threads=2, process_output=True)
    assert matrix.entries["token_embd.weight"].in_sum2.shape == (1, 256)


def test_a_short_text_is_refused(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("too short")
    with pytest.raises(InputError, match="less than one chunk of 512"):
        collect(tiny("bf16"), tmp_path / "t.txt")


def test_experts_are_counted_apart_as_llama_imatrix_does(
    with_experts: Callable[..., Path], demo_text: Path, llama_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    model, out = with_experts(n_expert=4, n_used=2), tmp_path / "theirs.gguf"
    ours = collect(model, demo_text, n_ctx=64, n_chunks=2, threads=2)
    command = [llama_tool("llama-imatrix"), "-m", model, "-f", demo_text, "-o", out, "-c", "64", "-b", "64"]
    subprocess.run([*command, "--chunks", "2", "-t", "2"], check=True, capture_output=True)
    theirs = imatrix.read(out)
    assert theirs.entries.keys() == ours.entries.keys()
    counts = ours.entries["blk.0.ffn_down_exps.weight"].counts
    assert counts.sum() == 2 * 64 * 2
    assert len(set(counts.tolist())) > 1
    for name, entry in theirs.entries.items():
        np.testing.assert_array_equal(ours.entries[name].counts, entry.counts)
        np.testing.assert_allclose(ours.importance(name), theirs.importance(name), rtol=1e-3, atol=1e-9)
