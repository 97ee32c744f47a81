"""Suites: what their TOML may say, and a run of every kind of measure that is killed half way and resumed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.errors import InputError
from gguf_golf.evaluate import perplexity
from gguf_golf.evaluate.suite import read_suite
from gguf_golf.evaluate.tasks import likelihood

TASKS = """
noise_floor = true
zstd = true

[[texts]]
name = "first"
file = "demo.txt"
n_ctx = 64
n_chunks = 3

[[texts]]
file = "other.txt"
n_ctx = 64
n_chunks = 2

[[tasks]]
name = "endings"
kind = "hellaswag"
file = "endings.txt"
limit = 4

[[tasks]]
name = "words"
kind = "lambada"
file = "words.jsonl"

[speed]
n_prompt = 32
n_generate = 4
repeats = 2
threads = 2
"""


@pytest.fixture
def suite(tmp_path: Path, demo_text: Path) -> Path:
    data = demo_text.read_text()
    (tmp_path / "demo.txt").write_text(data)
    (tmp_path / "other.txt").write_text(data[5000:])
    words = data.split()
    endings = [[" ".join(words[i : i + 6]), str(i % 4), *words[i + 6 : i + 10]] for i in range(0, 60, 10)]
    (tmp_path / "endings.txt").write_text("".join(line + "\n" for block in endings for line in block))
    texts = [" ".join(words[i : i + 9]) for i in range(0, 50, 10)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "all.toml").write_text(TASKS)
    return tmp_path / "all.toml"


def test_a_suite_is_read(suite: Path) -> None:
    found = read_suite(suite)
    assert [text.label for text in found.texts] == ["first", "other"]
    assert [task.kind.name for task in found.tasks] == ["hellaswag", "lambada"]
    assert found.texts[0].file == suite.parent / "demo.txt"
    assert found.name == "all"
    assert found.noise_floor


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("noise_floor = true", "noise_flor = true", "did you mean 'noise_floor'"),
        ("n_ctx = 64", 'n_ctx = "64"', "n_ctx of a text cannot be '64'"),
        ("n_ctx = 64", "n_ctx = true", "n_ctx of a text cannot be True"),
        ("n_chunks = 3", "chunks = 3", "did you mean 'n_chunks'"),
        ('file = "demo.txt"', 'file = "absent.txt"', "absent.txt does not exist"),
        ('file = "demo.txt"', f'file = "{"long" * 100}"', "does not exist"),
        ('name = "first"', 'name = "other"', "the same name"),
        ('kind = "lambada"\n', "", "needs a `kind`"),
        ('kind = "lambada"', 'kind = "lamdaba"', "did you mean 'lambada'"),
        ('kind = "lambada"', 'kind = "lambada"\nshots = 5', "kind lambada has no key 'shots'"),
        ('kind = "lambada"', 'kind = "piqa"', "kind piqa needs labels"),
        ('kind = "lambada"', 'kind = "piqa"\nlabel = "words.jsonl"', "did you mean 'labels'"),
        ('kind = "lambada"', 'kind = "piqa"\nlabels = "words.jsonl"\npassword = "x"', "piqa has no key 'password'"),
        ("limit = 4", "limit = 0", "1 or more"),
        ("noise_floor = true", 'noise_floor = "no"', "noise_floor cannot be 'no'"),
        ("repeats = 2", "repeat = 2", "did you mean 'repeats'"),
        ("noise_floor = true", "noise_floor = ", "not TOML"),
    ],
)
def test_mistakes_are_named(suite: Path, old: str, new: str, message: str) -> None:
    suite.write_text(suite.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_suite(suite)


def test_a_suite_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('name = "nothing"')
    with pytest.raises(InputError, match="nothing to measure"):
        read_suite(tmp_path / "s.toml")


def test_killed_and_resumed_gives_the_same_json(
    tiny: Callable[[str], Path], suite: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "eval",
        str(tiny("q8_0")),
        str(tiny("q3_k")),
        "--suite",
        str(suite),
        "--threads",
        "2",
    ]

    def run(out: str) -> bytes:
        command = [*arguments, "--json", str(suite.parent / "results.json")]
        monkeypatch.setattr(sys, "argv", ["gguf-golf", *command])
        result = CliRunner().invoke(cli.cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert "endings" in result.output
        (suite.parent / "results.json").rename(suite.parent / out)
        return (suite.parent / out).read_bytes()

    whole = run("whole.json")

    own_cache.joinpath("eval").rename(own_cache / "first")
    real_logits, real_variant = perplexity._chunk_logits, likelihood._variant
    for limit in (2, 7, 3, 9):  # stops in the base, the noise floor, the model, the tasks
        steps = []

        def step(real, limit=limit, steps=steps):  # type: ignore[no-untyped-def]
            def stepping(*arguments):  # type: ignore[no-untyped-def]
                steps.append(1)
                if len(steps) > limit:
                    raise KeyboardInterrupt
                return real(*arguments)

            return stepping

        with monkeypatch.context() as patch:
            patch.setattr(perplexity, "_chunk_logits", step(real_logits))
            patch.setattr(likelihood, "_variant", step(real_variant))
            stopped = CliRunner().invoke(cli.cli, arguments)
            assert stopped.exit_code != 0
        if limit == 2:
            assert list(own_cache.glob("eval/*/base.logits.partial"))
    (own_cache / "first" / "speed").rename(own_cache / "eval" / "speed")  # the clock alone may differ
    assert run("resumed.json") == whole

    document = json.loads(whole)
    assert (document["schema"], document["version"]) == ("gguf-golf/results", 1)
    base, floor, quant = document["models"]
    assert [model["role"] for model in document["models"]] == ["base", "noise-floor", "quant"]
    assert base["kld_mean"] is None
    assert abs(floor["kld_mean"]) < quant["kld_mean"] / 20
    assert quant["texts"].keys() == {"first", "other"}
    assert quant["tokens"] == sum(text["tokens"] for text in quant["texts"].values())
    assert quant["tasks"]["endings"]["n"] == 4
    assert quant["tasks"]["endings"]["metrics"].keys() == {"acc", "acc_norm", "acc_token"}
    assert base["tasks"]["endings"]["metrics"]["acc"]["mcnemar_p"] is None
    assert quant["tasks"]["words"]["chance"] == 0
    assert len(quant["speed"]["prompt_tps_runs"]) == 2
    assert quant["speed"]["resident_bytes"] > quant["bytes"]
    assert 0 < quant["bytes_zstd"] < quant["bytes"] * 1.01
    assert "tasks" not in floor or floor["tasks"] == {}
    flips = quant["tasks"]["endings"]["metrics"]["acc_norm"]
    ours, theirs = quant["tasks"]["endings"]["correct"], base["tasks"]["endings"]["correct"]
    assert flips["lost"] == [name for name in theirs if theirs[name] and not ours[name]]
    assert flips["gained"] == [name for name in theirs if ours[name] and not theirs[name]]


def test_log_probabilities_cannot_be_the_base_of_tasks(
    tiny: Callable[[str], Path], suite: Path, own_cache: Path
) -> None:
    (suite.parent / "short.toml").write_text('[[texts]]\nfile = "demo.txt"\nn_ctx = 64\nn_chunks = 1\n')
    runner = CliRunner()
    first = runner.invoke(cli.cli, ["eval", str(tiny("q4_0")), "--suite", str(suite.parent / "short.toml")])
    assert first.exit_code == 0, first.output
    (logits,) = own_cache.glob("eval/*/base.logits")
    result = runner.invoke(cli.cli, ["eval", str(logits), str(tiny("q4_0")), "--suite", str(suite)])
    assert isinstance(result.exception, InputError)
    assert "base of texts only" in str(result.exception)


def test_text_or_suite_but_not_both(tiny: Callable[[str], Path], suite: Path, demo_text: Path) -> None:
    both = ["eval", str(tiny("q8_0")), "--suite", str(suite), "--text", str(demo_text)]
    result = CliRunner().invoke(cli.cli, both)
    assert result.exit_code == 2
    assert "either --text or --suite" in result.output


@pytest.mark.parametrize("option", [["--chunks", "2"], ["--ctx", "64"]])
def test_what_a_suite_says_is_not_said_again(tiny: Callable[[str], Path], suite: Path, option: list[str]) -> None:
    result = CliRunner().invoke(cli.cli, ["eval", str(tiny("q8_0")), "--suite", str(suite), *option])
    assert result.exit_code == 2
    assert "stand in the suite" in result.output


def test_the_noise_floor_can_be_added_to_a_suite(
    tiny: Callable[[str], Path], suite: Path, own_cache: Path, tmp_path: Path
) -> None:
    short = suite.parent / "short.toml"
    short.write_text('[[texts]]\nfile = "demo.txt"\nn_ctx = 64\nn_chunks = 1\n')
    found = CliRunner().invoke(
        cli.cli, ["eval", str(tiny("q8_0")), "--suite", str(short), "--noise-floor"], catch_exceptions=False
    )
    assert "(noise-floor)" in found.output


def test_a_noise_floor_without_texts_is_refused(suite: Path) -> None:
    (suite.parent / "s.toml").write_text("noise_floor = true\n[speed]\n")
    with pytest.raises(InputError, match="there are none"):
        read_suite(suite.parent / "s.toml")
