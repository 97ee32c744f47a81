"""Whole evaluations of golf-tiny: agreement with llama-perplexity, the cache, resumption, refusals."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.errors import DataError, InputError
from gguf_golf.evaluate import perplexity
from gguf_golf.evaluate.evaluate import evaluate
from gguf_golf.evaluate.logits_file import LogitsShape
from gguf_golf.evaluate.on_text import BaseOnText, TextSettings
from gguf_golf.evaluate.results import ModelResult, TextMeasures
from gguf_golf.runtime.session import is_repacked

N_CTX = 256
N_CHUNKS = 4


@pytest.fixture
def text(demo_text: Path) -> TextSettings:
    return TextSettings(demo_text, N_CTX, N_CHUNKS)


def measures(result: ModelResult) -> TextMeasures:
    assert result.measures is not None
    return result.measures


def llama_perplexity(program: Path, model: Path, *arguments: str | Path) -> dict[str, float]:
    command = [program, "-m", model, "-c", str(N_CTX), "-t", "2", *arguments]
    wanted = {"Mean PPL(Q)", "Mean KLD"} if "--kl-divergence" in arguments else {"Final estimate: PPL"}
    for _ in range(20):  # it ends without waiting for its log's thread, on a busy machine mostly before the end
        done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
        found = re.findall(
            r"^.*?(Final estimate: PPL|Mean PPL\(Q\)|Mean +KLD|Maximum KLD|[\d.]+% +KLD|Median +KLD|RMS Δp|Same top p)"
            r" *[:=] *([\d.]+)",
            done.stdout + done.stderr,
            re.MULTILINE,
        )
        results = {re.sub(" +", " ", name): float(value) for name, value in found}
        if wanted | ({"Same top p"} if "--kl-divergence" in arguments else set()) <= results.keys():
            break
    assert wanted <= results.keys(), f"{program.name} printed:\n{done.stdout}{done.stderr}"
    return results


def test_agrees_with_llama_perplexity_on_files_of_both(
    tiny: Callable[[str], Path],
    text: TextSettings,
    llama_tool: Callable[[str], Path],
    own_cache: Path,
    tmp_path: Path,
) -> None:
    program = llama_tool("llama-perplexity")
    base, quant = tiny("bf16"), tiny("q3_k")
    theirs = tmp_path / "theirs.logits"
    what = ["-f", text.file, "--chunks", str(N_CHUNKS)]
    plain = llama_perplexity(program, base, *what, "--kl-divergence-base", theirs)
    ours = evaluate(base, [quant], text, threads=2)
    assert measures(ours[0]).ppl == pytest.approx(plain["Final estimate: PPL"], rel=1e-3)

    (our_file,) = own_cache.glob("eval/*/base.logits")
    from_theirs = evaluate(theirs, [quant], text, threads=2)
    assert [result.role for result in from_theirs] == ["quant"]
    for file, result in ((our_file, ours[1]), (theirs, from_theirs[0])):
        expected = llama_perplexity(program, quant, "--kl-divergence", "--kl-divergence-base", file)
        found = measures(result)
        assert found.ppl == pytest.approx(expected["Mean PPL(Q)"], rel=1e-3)
        assert found.kld_mean == pytest.approx(expected["Mean KLD"], rel=1e-3)
        assert found.kld_p50 == pytest.approx(expected["Median KLD"], rel=1e-3)
        assert found.kld_p90 == pytest.approx(expected["90.0% KLD"], rel=1e-3)
        assert found.kld_p99 == pytest.approx(expected["99.0% KLD"], rel=1e-3)
        assert found.kld_p999 == pytest.approx(expected["99.9% KLD"], rel=1e-3)
        assert found.kld_max == pytest.approx(expected["Maximum KLD"], rel=1e-3)
        assert found.rms_dp is not None
        assert 100 * found.rms_dp == pytest.approx(expected["RMS Δp"], abs=6e-4)
        assert found.top1 is not None
        assert 100 * found.top1 == pytest.approx(expected["Same top p"], abs=6e-4)


def test_bits_per_byte_is_the_loss_over_the_bytes(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path
) -> None:
    found = measures(evaluate(tiny("q8_0"), [], text, threads=2)[0])
    bits = np.log2(found.ppl) * found.tokens
    assert found.tokens == N_CHUNKS * (N_CTX // 2 - 1)
    assert found.bpb == pytest.approx(bits / found.text_bytes)
    assert 1 < found.text_bytes / found.tokens < 6  # bytes in a token of English


def test_means_of_chunks_stand_beside_those_of_all(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path
) -> None:
    base, quant = evaluate(tiny("bf16"), [tiny("q4_0")], text, threads=2)
    assert base.chunks.keys() == {"nll"}
    assert {name: len(means) for name, means in quant.chunks.items()} == dict.fromkeys(("nll", "kld", "top1"), N_CHUNKS)
    found = measures(quant)
    assert np.exp(np.mean(base.chunks["nll"])) == pytest.approx(measures(base).ppl)
    assert np.exp(np.mean(quant.chunks["nll"])) == pytest.approx(found.ppl)
    assert np.mean(quant.chunks["kld"]) == pytest.approx(found.kld_mean)
    assert np.mean(quant.chunks["top1"]) == pytest.approx(found.top1)
    ratios = np.subtract(quant.chunks["nll"], base.chunks["nll"])
    assert ratios.mean() == pytest.approx(found.ln_ppl_ratio, abs=1e-5)


def test_what_llama_cpp_repacks_is_measured_as_stored_too(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q4_0 is repacked on x86 with AVX2 and on Arm; another CPU would show two equal rows here."""
    monkeypatch.setattr("gguf_golf.evaluate.evaluate.is_repacked", lambda path: path == tiny("q4_0"))
    results = evaluate(tiny("bf16"), [tiny("q4_0"), tiny("q5_0")], text, threads=2, noise_floor=True)
    assert [(result.role, result.file) for result in results] == [
        *(("base", tiny("bf16").name), ("noise-floor", tiny("bf16").name), ("noise-floor", tiny("q4_0").name)),
        *(("quant", tiny("q4_0").name), ("quant", tiny("q5_0").name)),
    ]
    stored, loaded = measures(results[2]), measures(results[3])
    assert stored.kld_mean == pytest.approx(loaded.kld_mean, rel=0.1)
    assert (stored.kld_mean == loaded.kld_mean) == (not is_repacked(tiny("q4_0")))
    assert not is_repacked(tiny("bf16"))


def test_the_noise_floor_is_far_below_the_smallest_loss(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path
) -> None:
    results = evaluate(tiny("bf16"), [tiny("q8_0")], text, threads=2, noise_floor=True)
    assert [result.role for result in results[:2]] == ["base", "noise-floor"]
    floor, loss = measures(results[1]), measures(results[-1])
    assert floor.kld_mean is not None
    assert loss.kld_mean is not None
    assert abs(floor.kld_mean) < loss.kld_mean / 20


def test_nothing_is_computed_twice_and_an_interrupted_run_gives_the_same(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = perplexity._chunk_logits
    calls = []

    def count_and_stop_at(limit: int) -> None:
        def chunk_logits(context, chunk, shape):  # type: ignore[no-untyped-def]
            calls.append(context.model.path.name)
            if len(calls) == limit:
                raise KeyboardInterrupt
            return decode(context, chunk, shape)

        calls.clear()
        monkeypatch.setattr(perplexity, "_chunk_logits", chunk_logits)

    run = lambda: evaluate(tiny("bf16"), [tiny("q4_0")], text, threads=2)  # noqa: E731
    count_and_stop_at(3)
    with pytest.raises(KeyboardInterrupt):
        run()
    count_and_stop_at(2 + 2)  # two chunks of the base are left, then two of the model run
    with pytest.raises(KeyboardInterrupt):
        run()
    count_and_stop_at(100)
    resumed = run()
    assert calls == ["golf-tiny-q4_0.gguf"] * 3
    calls.clear()
    again = run()
    assert calls == []
    assert [result.to_json() for result in again] == [result.to_json() for result in resumed]
    own_cache.rename(own_cache.with_name("elsewhere"))
    fresh = run()
    assert len(calls) == 2 * N_CHUNKS
    assert [result.to_json() for result in fresh] == [result.to_json() for result in resumed]


def test_another_text_or_context_is_another_base(
    tiny: Callable[[str], Path], demo_text: Path, own_cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(demo_text.read_bytes()[1000:])
    settings = [TextSettings(demo_text, 64, 1), TextSettings(demo_text, 64, 2), TextSettings(other, 64, 1)]
    folders = {BaseOnText(tiny("q4_0"), text, [], own_cache, 2).folder for text in settings}
    assert len(folders) == 3


def test_files_of_different_tokenizers_are_refused(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path, tmp_path: Path
) -> None:
    def entry(piece: str) -> bytes:
        return len(piece.encode()).to_bytes(8, "little") + piece.encode()

    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(tiny("q4_0").read_bytes().replace(entry("\u2581the"), entry("\u2581thq"), 1))
    with pytest.raises(InputError, match="are not those of the base"):
        evaluate(tiny("bf16"), [foreign], text, threads=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the text is empty"),
        (b" \n", "the text is empty"),
        (b"a word", "less than one chunk"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_measured_is_refused(
    tiny: Callable[[str], Path], own_cache: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        evaluate(tiny("q4_0"), [], TextSettings(tmp_path / "t.txt", N_CTX), threads=2)


def test_a_file_that_is_no_model_is_refused(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path, tmp_path: Path
) -> None:
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(tiny("q4_0").read_bytes()[:100_000])
    with pytest.raises(InputError, match="truncated"):
        evaluate(tiny("q4_0"), [truncated], text, threads=2)
    with pytest.raises(InputError, match="not a GGUF"):
        evaluate(text.file, [], text, threads=2)
    with pytest.raises(InputError, match="no such file"):
        evaluate(tiny("q4_0"), [tmp_path / "absent.gguf"], text, threads=2)


def test_a_large_vocabulary_is_decoded_in_parts_with_the_same_bytes(
    tiny: Callable[[str], Path], demo_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TextSettings(demo_text, 512, 1)

    def bytes_of(name: str) -> tuple[bytes, bytes]:
        on_text = BaseOnText(tiny("bf16"), text, [], tmp_path / name, 2)
        return on_text.logits.path.read_bytes(), on_text.compare(tiny("q3_k"), 2).tobytes()

    whole = bytes_of("whole")
    sizes: list[int] = []
    real = perplexity.Scorer.encode

    def counted(self, logits, targets):  # type: ignore[no-untyped-def]
        sizes.append(len(logits))
        return real(self, logits, targets)

    monkeypatch.setattr(perplexity.Scorer, "encode", counted)
    monkeypatch.setattr(perplexity, "LOGITS_PER_BATCH", 1)
    assert bytes_of("parts") == whole
    assert sizes == [64, 64, 64, 63]


@pytest.mark.parametrize("n_ctx", [4, 64, 128, 140, 300, 512, 1000, 4096])
@pytest.mark.parametrize("n_vocab", [300, 50_000, 152_000, 262_144, 1_000_000])
def test_parts_of_a_chunk_cover_its_second_half_and_are_never_small(n_ctx: int, n_vocab: int) -> None:
    shape = LogitsShape(n_ctx, n_vocab, 1)
    parts = perplexity._parts(shape)
    assert [position for part in parts for position in part] == list(range(n_ctx // 2, n_ctx))
    if len(parts) > 1:
        assert all(len(part) >= perplexity.ROWS for part in parts)
        assert all(
            len(part) * n_vocab <= max(perplexity.LOGITS_PER_BATCH, 2 * perplexity.ROWS * n_vocab) for part in parts
        )


def test_a_cache_that_a_crash_has_cut_is_made_again(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path
) -> None:
    first = evaluate(tiny("bf16"), [tiny("q4_0")], text, threads=2)
    for name in ("*/base.logits", "*/base.nll", "*/*.scores"):
        (file,) = (own_cache / "eval").glob(name)
        for damage in (lambda data: data[:-7], lambda data: data + b"x"):
            file.write_bytes(damage(file.read_bytes()))
            assert evaluate(tiny("bf16"), [tiny("q4_0")], text, threads=2) == first


def test_constant_logits_are_an_error(tiny: Callable[[str], Path], text: TextSettings, tmp_path: Path) -> None:
    """A model whose last norm is zero finds every token alike: its perplexity would be the vocabulary's size."""
    dead = tmp_path / "dead.gguf"
    dead.write_bytes(tiny("bf16").read_bytes())
    reader = gguf.GGUFReader(dead, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight").data[:] = 0
    reader.data.flush()
    with pytest.raises(DataError, match=r"dead\.gguf, chunk 1: .*same logit for every token"):
        evaluate(dead, [], text, threads=2)


def test_nan_logits_name_the_file_and_chunk(
    tiny: Callable[[str], Path], text: TextSettings, own_cache: Path, tmp_path: Path
) -> None:
    poisoned = tmp_path / "poisoned.gguf"
    poisoned.write_bytes(tiny("bf16").read_bytes())
    reader = gguf.GGUFReader(poisoned, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight").data[:] = np.nan
    reader.data.flush()
    with pytest.raises(DataError, match=r"poisoned\.gguf, chunk 1: .*NaN"):
        evaluate(tiny("bf16"), [poisoned], text, threads=2)
