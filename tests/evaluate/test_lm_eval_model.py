"""The harness's model class against the harness's own Hugging Face class, on the same prompts and weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="needs the extra [lm-eval]")
pytest.importorskip("accelerate", reason="needs lm-eval[hf], whose Hugging Face class is compared with")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM

from gguf_golf.errors import InputError
from gguf_golf.evaluate.lm_eval_model import GolfLM
from gguf_golf.evaluate.tasks.kinds import gpqa
from gguf_golf.evaluate.tasks.kinds.gpqa import Record

REAL = Path(__file__).parents[3] / "shared" / "data" / "gpqa" / "dataset.zip"


def instances(kind: str, *arguments: tuple[object, ...]) -> list[Instance]:
    return [Instance(kind, {}, args, index) for index, args in enumerate(arguments)]


@pytest.fixture(scope="module")
def ours(tiny: Callable[[str], Path]) -> GolfLM:
    return GolfLM(str(tiny("f32")), n_ctx=512, threads=2)


def hugging_face(folder: Path, add_bos_token: bool) -> HFLM:
    return HFLM(str(folder), dtype="float32", device="cpu", batch_size=1, max_length=512, add_bos_token=add_bos_token)


def gpqa_records() -> list[Record]:
    """Five real questions where the zip is there; their texts stay in memory."""
    if REAL.is_file():
        return gpqa.read_records(REAL)[:5]
    return [Record(f"r{i}", "", f"What is {i} times 2?", (str(2 * i), "7", "9", "eleven")) for i in range(5)]


def test_it_is_registered() -> None:
    assert get_model("gguf-golf") is GolfLM


@pytest.mark.parametrize("form", ["letters", "answers"])
def test_gpqa_log_likelihoods_agree(ours: GolfLM, tiny_dir: Path, form: str) -> None:
    theirs = hugging_face(tiny_dir, add_bos_token=True)
    asked = gpqa.questions(gpqa_records(), form, 1, 1)
    options = [option for question in asked for option in question.variants[0].shown]
    requests = instances("loglikelihood", *((option.context, option.continuation) for option in options))
    found, expected = ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True)
    differences = [abs(a[0] - b[0]) / max(1, abs(b[0])) for a, b in zip(found, expected, strict=True)]
    assert max(differences) < 2e-3  # no texts in a failure's message
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_rolling_log_likelihoods_agree(ours: GolfLM, tiny_dir: Path, demo_text: Path) -> None:
    theirs = hugging_face(
        tiny_dir, add_bos_token=False
    )  # with it, the harness scores the BOS of a text as a token of it
    text = demo_text.read_text()
    requests = instances("loglikelihood_rolling", (text[:300],), (text[:6000],))
    for found, expected in zip(
        ours.loglikelihood_rolling(requests, True), theirs.loglikelihood_rolling(requests, True), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-3)


def test_an_answer_longer_than_the_context_is_refused(ours: GolfLM) -> None:
    with pytest.raises(InputError, match="max_gen_toks=512 leaves no room for a prompt in a context of 512"):
        ours.generate_until(instances("generate_until", ("The city of", {"max_gen_toks": 512})), True)
    stops = list("abcdefghijklmnopqrstuvwxyz .,")  # after a token or two
    settings = {"max_gen_toks": 500, "until": stops}
    (text,) = ours.generate_until(instances("generate_until", ("The city of " * 400, settings)), True)
    assert not set(text) & set(stops)


def test_generation_stops_at_the_first_stop_string(ours: GolfLM) -> None:
    (whole,) = ours.generate_until(instances("generate_until", ("The city of", {"max_gen_toks": 20})), True)
    stop = whole[len(whole) // 2 :][:3]
    (cut,) = ours.generate_until(
        instances("generate_until", ("The city of", {"max_gen_toks": 20, "until": ["\0", stop]})), True
    )
    assert cut == whole.split(stop, 1)[0]
