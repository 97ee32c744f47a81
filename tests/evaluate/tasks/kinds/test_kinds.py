"""Each kind of file: what is read, and what is refused."""

import json
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.kinds import kinds_table
from gguf_golf.evaluate.tasks.question import Option, Question, sample
from gguf_golf.evaluate.tasks.readers import read_questions

DATA = Path(__file__).parents[5] / "shared" / "data" / "choices"


def only(questions: list[Question]) -> tuple[Question, list[tuple[str, str]]]:
    (question,) = questions
    (variant,) = question.variants
    assert variant.order == tuple(range(len(variant.shown)))
    return question, [(option.context, option.continuation) for option in variant.shown]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_hellaswag(tmp_path: Path) -> None:
    found, options = only(read_questions("hellaswag", write(tmp_path / "h", "A man", "2", "a", "b", "c", "d")))
    assert found.right == 2
    assert options == [("A man", " a"), ("A man", " b"), ("A man", " c"), ("A man", " d")]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("w.csv", '7,"The cup, it is said, broke as _ fell.",it,he,2'),
        (
            "w.jsonl",
            '{"qID": "7", "sentence": "The cup, it is said, broke as _ fell.", '
            '"option1": "it", "option2": "he", "answer": "2"}',
        ),
    ],
)
def test_winogrande(tmp_path: Path, name: str, line: str) -> None:
    found, options = only(read_questions("winogrande", write(tmp_path / name, line)))
    assert (found.id, found.right) == ("winogrande-7", 1)
    assert options == [
        ("The cup, it is said, broke as it", " fell."),
        ("The cup, it is said, broke as he", " fell."),
    ]


def test_arc_with_letters_or_numbers(tmp_path: Path) -> None:
    choices = [{"text": "ice", "label": "1"}, {"text": "steam", "label": "2"}, {"text": "sand", "label": "3"}]
    line = {"id": "x", "question": {"stem": "What is hot?", "choices": choices}, "answerKey": "2"}
    found, options = only(read_questions("arc", write(tmp_path / "a", json.dumps(line))))
    assert (found.id, found.right) == ("x", 1)
    assert options[2] == ("Question: What is hot?\nAnswer:", " sand")


def test_piqa(tmp_path: Path) -> None:
    file = write(tmp_path / "p", '{"goal": "open it", "sol1": "push", "sol2": "pull"}')
    found, options = only(read_questions("piqa", file, labels=write(tmp_path / "l", "1")))
    assert found.right == 1
    assert options == [("Question: open it\nAnswer:", " push"), ("Question: open it\nAnswer:", " pull")]


def test_lambada_asks_for_the_last_word(tmp_path: Path) -> None:
    _, options = only(read_questions("lambada", write(tmp_path / "l", '{"text": "She met\\nthe king"}')))
    assert options == [("She met\nthe", " king")]


@pytest.mark.parametrize(("header", "answer"), [(False, "C"), (True, "2")])
def test_mmlu_with_examples(tmp_path: Path, header: bool, answer: str) -> None:
    head = ["question,choice0,choice1,choice2,choice3,answer"] if header else []
    test = write(tmp_path / "high_school_physics_test.csv", *head, f'"What, then?",w,x,y,z,{answer}')
    dev = tmp_path / "dev"
    dev.mkdir()
    write(dev / "high_school_physics_dev.csv", *head, f"Q1,a,b,c,d,{answer}", f"Q2,a,b,c,d,{answer}")
    found, options = only(read_questions("mmlu", test, examples=dev, shots=1))
    assert (found.id, found.right) == ("high_school_physics-0", 2)
    assert [continuation for _, continuation in options] == [" A", " B", " C", " D"]
    assert options[0][0] == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "Q1\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nWhat, then?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("hellaswag", ["only", "three", "lines"], "not six"),
        ("hellaswag", ["A", "4", "a", "b", "c", "d"], "line 2"),
        ("winogrande", ["1,no blank here,a,b,1"], "no `_`"),
        ("winogrande", ["1,too _ few,a"], "3 columns"),
        ("arc", ['{"question": {"stem": "s", "choices": []}, "answerKey": "A"}'], "line 1"),
        ("arc", ['{"question": 5}'], "answerKey"),
        ("lambada", ["not json"], "line 1: not JSON"),
        ("lambada", ["1" * 5000], "line 1: not JSON"),
        ("lambada", ['{"text": "one"}'], "one word"),
        ("lambada", ["[1]"], "has no text"),
        ("mmlu", ["question,a,b,c,d"], "row 1: 5 columns"),
        ("mmlu", ["q,a,b,c,d,E"], "none of A-D"),
        ("mmlu", ["q,a,b,c,d,"], "none of A-D"),
        ("lambada", ['{"text": 5}'], "text is not a str"),
        ("helaswag", ["x"], "did you mean 'hellaswag'"),
        ("riddles", ["x"], "known are arc"),
        ("hellaswag", [], "no questions"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_refused(tmp_path: Path, kind: str, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_questions(kind, write(tmp_path / "f", *lines), **({"shots": 0} if kind == "mmlu" else {}))


def test_labels_must_fit_the_questions(tmp_path: Path) -> None:
    file = write(tmp_path / "p", '{"goal": "g", "sol1": "a", "sol2": "b"}')
    for labels in (["0", "1"], ["2"], []):
        with pytest.raises(InputError, match="labels"):
            read_questions("piqa", file, labels=write(tmp_path / "l", *labels))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_lines_end_at_newlines_only(tmp_path: Path, separator: str) -> None:
    (found,) = read_questions("hellaswag", write(tmp_path / "h", f"A{separator}man\r", "2\r", "a", "b", "c", "d"))
    assert found.variants[0].shown[0].context == f"A{separator}man"
    sentence = f"The{separator}cup broke as _ fell."
    (found,) = read_questions("winogrande", write(tmp_path / "w.csv", f"7,{sentence},it,he,2"))
    assert found.variants[0].shown[0].context == f"The{separator}cup broke as it"
    if separator >= " ":  # JSON has no raw control characters
        (found,) = read_questions(
            "lambada", write(tmp_path / "l", json.dumps({"text": f"a{separator} b"}, ensure_ascii=False))
        )
        assert found.variants[0].shown[0] == Option(f"a{separator}", " b")


def test_examples_that_are_too_few_or_not_named_are_an_error(tmp_path: Path) -> None:
    test = write(tmp_path / "physics_test.csv", "Q,a,b,c,d,A")
    with pytest.raises(InputError, match="5 shots need `examples`"):
        read_questions("mmlu", test)
    with pytest.raises(InputError, match="1 examples, not 2"):
        read_questions("mmlu", test, examples=write(tmp_path / "physics_dev.csv", "Q,a,b,c,d,A"), shots=2)


def test_the_documentation_has_the_table_of_kinds() -> None:
    page = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert kinds_table() in page, "run python -m gguf_golf.evaluate.tasks.kinds and paste what it prints"


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the benchmark files beside the checkout (shared/data/choices) are absent"
)
def test_the_published_files() -> None:
    sizes = {
        "hellaswag": len(read_questions("hellaswag", DATA / "hellaswag" / "hellaswag_val_full.txt")),
        "piqa": len(read_questions("piqa", DATA / "piqa" / "valid.jsonl", labels=DATA / "piqa" / "valid-labels.lst")),
        "lambada": len(read_questions("lambada", DATA / "lambada" / "lambada_test.jsonl")),
        "mmlu": len(read_questions("mmlu", DATA / "mmlu" / "test", examples=DATA / "mmlu" / "dev")),
    }
    assert sizes == {"hellaswag": 10042, "piqa": 1838, "lambada": 5153, "mmlu": 14042}


def test_a_sample_is_the_seeds() -> None:
    items = list(range(100))
    assert sample(items, None, 1) == sample(items, 200, 1) == items
    assert sample(items, 10, 1) == sample(items, 10, 1) != sample(items, 10, 2)
    assert sample(items, 10, 1) == sorted(sample(items, 10, 1))
