"""GPQA: reading the zip in memory, orders, secrecy. Every question here is invented; the real file is only counted."""

import base64
import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.evaluate.tasks.kinds import gpqa
from gguf_golf.evaluate.tasks.kinds.gpqa import GpqaSettings, Record, orders, prompts, questions, read_records

REAL = Path(__file__).parents[5] / "shared" / "data" / "gpqa" / "dataset.zip"
RECORD = Record("rec1", "Physics", "How many?", ("four", "one", "two", "three"))


def csv_bytes(drop: str | None = None, blank: str | None = None) -> bytes:
    columns = [column for column in (*gpqa.COLUMNS, gpqa.DOMAIN) if column != drop]
    row = dict.fromkeys(columns, "") | {
        "Question": "How many?", gpqa.RIGHT: " four", "Incorrect Answer 1": "one", "Incorrect Answer 2": "two",
        "Incorrect Answer 3": "three", gpqa.IDENTITY: "rec1", gpqa.DOMAIN: "Physics",
    }  # fmt: skip
    if blank:
        row[blank] = ""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerow(row)
    return out.getvalue().encode()


def test_a_csv(tmp_path: Path) -> None:
    (tmp_path / "gpqa.csv").write_bytes(csv_bytes())
    assert read_records(tmp_path / "gpqa.csv") == [RECORD]


def test_a_zip_names_the_subset(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "dataset.zip", "w") as archive:
        archive.writestr("dataset/gpqa_main.csv", csv_bytes())
    assert read_records(tmp_path / "dataset.zip", "main", "any") == [RECORD]
    with pytest.raises(InputError, match="holds no gpqa_diamond"):
        read_records(tmp_path / "dataset.zip", "diamond", "any")
    with pytest.raises(InputError, match="give its password"):
        read_records(tmp_path / "dataset.zip", "main")


# gpqa_main.csv with the record below, made by `zip -P "open sesame"`
ENCRYPTED = base64.b64decode(
    "UEsDBBQACQAIABsjeV3QXMpBdQAAAJgAAAAVAAAAZGF0YXNldC9ncHFhX21haW4uY3N29LRbGjGXh2mtN3w9bgTDJXhGyBCdE5o6"
    "BuG7qFv/Q30OON26CIXDo31g417IW5giVEBqW5Yz/UNga8ncESoTMhnEKLR1rx1bPwt9lPtWEK2VzqEC5pMcl1QM6xGBXp8Mr7uN"
    "c4t3DyPEvGuPq8LbuAzUnS+aUEsHCNBcykF1AAAAmAAAAFBLAQIeAxQACQAIABsjeV3QXMpBdQAAAJgAAAAVAAAAAAAAAAEAAACk"
    "gQAAAABkYXRhc2V0L2dwcWFfbWFpbi5jc3ZQSwUGAAAAAAEAAQBDAAAAuAAAAAAA"
)


def test_the_password(tmp_path: Path) -> None:
    archive = tmp_path / "dataset.zip"
    archive.write_bytes(ENCRYPTED)
    assert read_records(archive, "main", "open sesame") == [RECORD]
    for wrong in ("wrong", "", *map(str, range(600))):  # one byte is checked at first: one in 256 gets past it
        with pytest.raises(InputError, match="password") as caught:
            read_records(archive, "main", wrong)
        assert "How many" not in str(caught.value)
    (tmp_path / "README.md").write_text("The file is protected by a password: `open sesame`.")
    assert read_records(archive, "main") == [RECORD]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "dataset.zip"]


@pytest.mark.parametrize("column", gpqa.COLUMNS)
def test_missing_columns_and_cells_are_named_without_their_neighbours(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes(drop=column))
    with pytest.raises(InputError, match=f"no column '{column}'"):
        read_records(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(csv_bytes(blank=column))
    with pytest.raises(InputError, match="record 1 is incomplete") as caught:
        read_records(tmp_path / "b.csv")
    assert "How many" not in str(caught.value)


@pytest.mark.skipif(not REAL.is_file(), reason="GPQA's zip beside the checkout (shared/data/gpqa) is absent")
def test_the_real_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {subset: len(read_records(REAL, subset)) for subset in gpqa.SUBSETS} == {
        "diamond": 198,
        "main": 448,
        "extended": 546,
    }
    with pytest.raises(InputError, match="password is wrong"):
        read_records(REAL, "diamond", "wrong")
    assert not list(tmp_path.iterdir())


def test_texts_stay_out_of_representations() -> None:
    assert "How many" not in repr(RECORD)
    assert "four" not in repr(RECORD)


def test_orders_are_fixed_by_seed_and_record_and_do_not_repeat() -> None:
    found = orders(RECORD, 24, 1)
    assert len(set(found)) == 24
    assert orders(RECORD, 3, 1) == found[:3]
    assert orders(RECORD, 24, 2) != found
    places = Counter(
        order.index(0) for number in range(400) for order in orders(Record(f"r{number}", "", "", RECORD.answers), 1, 1)
    )
    assert all(70 < places[place] < 130 for place in range(4))


def test_settings_that_gpqa_does_not_have_are_refused() -> None:
    for wrong, message in (
        ({"subset": "dimond"}, "did you mean 'diamond'"),
        ({"mode": "chat"}, "no mode 'chat'"),
        ({"form": "letter"}, "did you mean 'letters'"),
        ({"permutations": 0}, "1 or more"),
    ):
        with pytest.raises(InputError, match=message):
            GpqaSettings(name="g", file=Path("x"), **wrong)  # type: ignore[arg-type]


def test_two_records_of_one_id_are_refused(tmp_path: Path) -> None:
    text = csv_bytes().decode()
    (tmp_path / "a.csv").write_text(text + text.split("\n", 1)[1], newline="")
    with pytest.raises(InputError, match="id rec1"):
        read_records(tmp_path / "a.csv")


def test_a_wrong_answer_that_reads_like_the_right_one_is_right_too() -> None:
    record = Record("r", "", "Stem?", ("10 eV", "5 eV", "10  eV", "10 EV"))
    for question in (
        *questions([record], "letters", 1, 1),
        *questions([record], "answers", 1, 1),
        *prompts([record], 1, 1),
    ):
        assert question.twins == {2}
        assert question.chance == 0.5


def test_each_repeat_of_a_prompt_has_an_order_of_its_own() -> None:
    (question,) = prompts([RECORD], 3, 1)
    assert [variant.order for variant in question.variants] == orders(RECORD, 3, 1)
    for variant in question.variants:
        place = variant.order.index(0)
        assert f"\n{'ABCD'[place]}) four" in variant.shown[0].context


def test_the_letter_of_the_right_answer_moves_with_it() -> None:
    (question,) = questions([RECORD], "letters", 4, 1)
    assert question.right == 0
    for variant in question.variants:
        prompt = variant.shown[0].context
        place = variant.order.index(question.right)
        assert f"({'ABCD'[place]}) four\n" in prompt
        assert variant.shown[place].continuation == f" ({'ABCD'[place]})"


def test_whole_answers_are_scored_unseen() -> None:
    (question,) = questions([RECORD], "answers", 4, 1)
    (variant,) = question.variants
    assert [option.continuation for option in variant.shown] == [" four", " one", " two", " three"]
    assert "four" not in variant.shown[0].context
