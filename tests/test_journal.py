"""A journal gives back what was finished, whatever a crash did to its last lines."""

import json
import threading
from pathlib import Path

import pytest

from gguf_golf import files
from gguf_golf.errors import InputError
from gguf_golf.journal import open_journal

JOB = {"model": "a", "types": ["tcq3"]}
RECORDS = ["blk.0", {"name": "blk.1", "error": 0.25}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.journal"
    with open_journal(path, JOB) as journal:
        assert journal.records == []
        for record in RECORDS:
            journal.add(record)
    return path


def test_the_same_job_finds_its_records_and_appends(path: Path) -> None:
    before = path.read_bytes()
    with open_journal(path, JOB) as journal:
        assert journal.records == RECORDS
        assert path.read_bytes() == before
        journal.add(3)
    with open_journal(path, JOB) as journal:
        assert journal.records == [*RECORDS, 3]


def test_another_job_begins_an_empty_journal_before_anything_else(path: Path) -> None:
    with open_journal(path, {**JOB, "types": ["tcq4"]}) as journal:
        assert journal.records == []
        assert len(path.read_text().splitlines()) == 1
    with open_journal(path, JOB) as journal:
        assert journal.records == []


def test_wherever_the_file_is_cut_whole_lines_are_kept_and_later_ones_are_readable(path: Path) -> None:
    data = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = RECORDS[: max(0, sum(end <= cut for end in ends) - 1)]
        with open_journal(path, JOB) as journal:
            assert journal.records == whole
            journal.add("next")
        assert [json.loads(line) for line in path.read_bytes().split(b"\n")[1:-1]] == [*whole, "next"]


@pytest.mark.parametrize("bad", [b"{", b"\xff\xfe", b"", b"[" * 100_000, b"\0\0\0"])
def test_a_line_that_cannot_be_read_is_skipped_and_cut(path: Path, bad: bytes) -> None:
    head, first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([head, first, bad, second, b""]))
    for _ in range(2):
        with open_journal(path, JOB) as journal:
            assert journal.records == RECORDS
    assert path.read_bytes() == b"\n".join([head, first, second, b""])


def test_a_file_that_is_no_journal_is_begun_again(path: Path) -> None:
    path.write_bytes(b"\x80 something else\n")
    with open_journal(path, JOB) as journal:
        assert journal.records == []


def test_a_record_that_could_not_be_written_leaves_no_torn_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with open_journal(path, JOB) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(files, "sync", full)
            with pytest.raises(InputError, match=r"x\.journal: cannot be written \(No space left"):
                journal.add("lost")
        assert path.read_bytes() == before
        assert journal.records == RECORDS


def test_a_journal_may_be_reached_through_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path.parent, target_is_directory=True)
    with open_journal(link / path.name, "another job") as journal:
        journal.add(1)
    with open_journal(path, "another job") as journal:
        assert journal.records == [1]


def test_a_second_holder_is_refused(path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with open_journal(path, JOB):
                pass
        except InputError as error:
            refused.append(error)

    with open_journal(path, JOB):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_removing_leaves_nothing_behind(path: Path) -> None:
    with open_journal(path, JOB) as journal:
        journal.remove()
    assert not list(path.parent.iterdir())
