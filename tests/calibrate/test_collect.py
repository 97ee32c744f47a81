"""Collected statistics: equal to llama-imatrix's, usable by llama-quantize, and not lost by Ctrl-C."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.chunks import text_chunks
from gguf_golf.calibrate.collect import Collector, collect
from gguf_golf.calibrate.hessian import Accumulator, Rows, Survey, kept
from gguf_golf.calibrate.imatrix import ImatrixEntry
from gguf_golf.calibrate.state import State
from gguf_golf.errors import InputError
from gguf_golf.runtime.session import Context, LoadedModel

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


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, chunk: int, times: int = 1) -> None:
    """Ctrl-C while the given chunk, counted from 1, is in the model."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born with it ignored
    decode, calls = Context.decode, []

    def pressed(self: Context, *arguments: Any) -> Any:
        calls.append(1)
        return decode(self, *arguments)

    add_dense = Collector._add_dense

    def interrupted(self: Collector, tensor: Any) -> None:
        if len(calls) == chunk:
            calls.append(1)
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        add_dense(self, tensor)

    monkeypatch.setattr(Context, "decode", pressed)
    monkeypatch.setattr(Collector, "_add_dense", interrupted)


@pytest.mark.parametrize("with_hessian", [False, True])
def test_ctrl_c_finishes_the_chunk_and_the_next_run_resumes_to_the_same_bytes(
    tiny: Callable[[str], Path],
    demo_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    with_hessian: bool,
) -> None:
    def run(name: str, chunks: int = 3) -> list[bytes]:
        out, hessian = tmp_path / f"{name}.gguf", tmp_path / f"{name}-hessian.gguf" if with_hessian else None
        collect(tiny("bf16"), demo_text, n_ctx=64, n_chunks=chunks, threads=1, out=out, hessian_path=hessian)
        return [path.read_bytes() for path in (out, hessian) if path is not None]

    whole = run("whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        press_ctrl_c(patch, 2 + with_hessian)  # with Hessians the first chunk runs once more, to see the layers
        run("cut")
    assert "interrupted after chunk 2: run the same command again to resume" in capsys.readouterr().err
    assert not (tmp_path / "cut.gguf").exists()
    decoded: list[int] = []
    decode = Context.decode
    monkeypatch.setattr(Context, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))
    assert run("cut") == whole
    assert len(decoded) == 1 + with_hessian
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        f"{name}{suffix}.gguf" for name in ("whole", "cut") for suffix in ("", "-hessian")[: 1 + with_hessian]
    }


def test_a_second_ctrl_c_stops_at_once_and_leaves_no_sums_that_are_wrong(
    tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, hessian = tmp_path / "i.gguf", tmp_path / "h.gguf"
    press_ctrl_c(monkeypatch, 3, times=3)  # signals that arrive together count once
    with pytest.raises(KeyboardInterrupt):
        collect(tiny("bf16"), demo_text, n_ctx=64, n_chunks=3, threads=1, out=out, hessian_path=hessian)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_resumes_from_the_sums_that_were_kept(
    tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> list[bytes]:
        out, hessian = tmp_path / f"{name}.gguf", tmp_path / f"{name}-hessian.gguf"
        collect(tiny("bf16"), demo_text, n_ctx=64, n_chunks=5, threads=1, out=out, hessian_path=hessian)
        return [out.read_bytes(), hessian.read_bytes()]

    whole = run("whole")
    monkeypatch.setattr("gguf_golf.calibrate.collect.KEEP_EVERY", 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        press_ctrl_c(patch, 6, times=3)  # at once, in the fifth chunk: what the third and fourth added was kept
        run("cut")
    decoded: list[int] = []
    decode = Context.decode
    monkeypatch.setattr(Context, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))
    assert run("cut") == whole
    assert len(decoded) == 2  # the survey, and the fifth chunk
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}{suffix}.gguf" for name in ("whole", "cut") for suffix in ("", "-hessian")
    }


def test_sums_over_other_rows_are_not_continued(tmp_path: Path) -> None:
    rows = Rows("w", "norm", 1, 0, np.ones((3, 4), np.float32))
    survey = Survey()
    survey.observe(rows)
    with pytest.raises(KeyboardInterrupt), Accumulator(tmp_path / "h.gguf", survey) as sums:
        sums.observe(rows)
        sums.save()
        raise KeyboardInterrupt
    assert kept(tmp_path / "h.gguf", survey, {"w": np.array([3])})
    assert not kept(tmp_path / "h.gguf", survey, {"w": np.array([6])})
    assert not kept(tmp_path / "h.gguf", survey, {})
    assert not kept(tmp_path / "other.gguf", survey, {"w": np.array([3])})


def test_sums_of_another_job_or_torn_ones_are_not_continued(tmp_path: Path) -> None:
    entries = {"w": ImatrixEntry(np.ones((1, 4)), np.array([2]), np.ones((1, 4), np.float32))}
    State(tmp_path / "s", {"text": "a"}).save(2, entries)
    done, kept = State(tmp_path / "s", {"text": "a"}).load()
    assert done == 2
    np.testing.assert_array_equal(kept["w"].in_sum2, entries["w"].in_sum2)
    assert State(tmp_path / "s", {"text": "b"}).load() == (0, {})
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-30])
    assert State(tmp_path / "s", {"text": "a"}).load() == (0, {})


def test_outputs_are_checked_before_the_model_runs(
    tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text = tmp_path / "m.gguf", tmp_path / "t.txt"
    model.write_bytes(tiny("bf16").read_bytes())
    text.write_bytes(demo_text.read_bytes())
    monkeypatch.setattr(LoadedModel, "__init__", lambda *_, **__: pytest.fail("the model was loaded"))
    for out, hessian in ((model, None), (text, None), (tmp_path / "i", model), (tmp_path / "i", tmp_path / "i")):
        with pytest.raises(InputError, match=r"is also an input|a name of its own"):
            collect(model, text, out=out, hessian_path=hessian, force=True)


def test_several_texts_are_summed_chunk_by_chunk(
    collected: imatrix.Imatrix, tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(demo_text.read_text()[60_000:80_000])
    alone = collect(tiny("bf16"), other, n_ctx=256, n_chunks=N_CHUNKS, threads=1)
    both = collect(tiny("bf16"), [demo_text, other], n_ctx=256, n_chunks=N_CHUNKS, threads=1)
    assert both.chunk_count == 2 * N_CHUNKS
    assert both.datasets == [str(demo_text), str(other)]
    for name, entry in both.entries.items():
        summed = collected.entries[name].in_sum2 + alone.entries[name].in_sum2
        np.testing.assert_allclose(entry.in_sum2, summed, rtol=1e-4)


def test_tokens_are_counted(tiny: Callable[[str], Path], demo_text: Path) -> None:
    with LoadedModel(tiny("bf16"), vocab_only=True) as model:
        tokens = text_chunks(model, demo_text, 128, 2).ravel().tolist()
    counts = collect(tiny("bf16"), demo_text, n_ctx=128, n_chunks=2, threads=1).token_counts
    assert counts is not None
    assert len(counts) == 4096
    assert counts.sum() == 256
    assert all(counts[token] == tokens.count(token) for token in set(tokens))
