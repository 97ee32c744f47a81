"""A dry run says what the real one then writes, and writes nothing itself."""

import json

import pytest
from click.testing import CliRunner

from gguf_golf.cli import cli
from gguf_golf.encode.cpu import CpuEncoder
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.forecast import forecast
from gguf_golf.quantize.job import Job
from gguf_golf.quantize.prepare import by_type


def test_types_and_bytes_are_those_of_the_file(tiny_dir, tmp_path):
    out = tmp_path / "out.gguf"
    found = forecast(by_type(tiny_dir, "tcq3", "auto", out, Job(progress=False)))
    assert not list(tmp_path.iterdir())
    done = convert(tiny_dir, out, type_name="tcq3", job=Job(progress=False))
    assert found.file_bytes == out.stat().st_size
    assert found.types == {name: quant_type.name for name, quant_type in done.assignment.types.items()}
    assert str(found).startswith(f"{found.file_bytes:,} bytes; tensors: 28 in tcq3, ")


def test_time_grows_with_the_weights_of_slow_types(tiny_dir, tmp_path, monkeypatch):
    """A clock that only encoding moves, by a microsecond a weight."""
    clock, encode = [0.0], CpuEncoder.encode

    def slow(self, rows, quant_type, *guidance):
        clock[0] += 1e-6 * rows.size
        return encode(self, rows, quant_type, *guidance)

    monkeypatch.setattr(CpuEncoder, "encode", slow)
    monkeypatch.setattr("gguf_golf.quantize.forecast.time.perf_counter", lambda: clock[0])
    made = by_type(tiny_dir, "tcq2", "q4_k", tmp_path / "out.gguf", Job(progress=False))
    quantized = sum(t.n_rows * t.shape[-1] for t in made.model.tensors if made.types[t.name].is_quantized)
    assert forecast(made).seconds == pytest.approx(1e-6 * quantized)


@pytest.mark.parametrize("command", [["convert", "--type", "tcq3"], ["fit", "--budget", "2MB"]])
def test_the_commands_write_nothing(command, tiny_dir, tmp_path):
    arguments = [command[0], str(tiny_dir), *command[1:], "-o", str(tmp_path / "out.gguf"), "--dry-run", "--json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schema"] == "gguf-golf/dry-run"
    assert not list(tmp_path.iterdir())
