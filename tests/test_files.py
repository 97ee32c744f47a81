"""Files appear whole or not at all, under a lock, and replace neither an input nor somebody else's work."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gguf_golf import files
from gguf_golf.errors import InputError

MARK = b'"schema": "ours"'
OURS = '{"schema": "ours"}'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_its_block_ends_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "out.json"
    with files.replace_file(out) as partial:
        partial.write_text("whole")
        assert not out.exists()
    assert out.read_text() == "whole"
    assert names(out.parent) == ["out.json"]


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")

    def write() -> None:
        with files.replace_file(out) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert out.read_text() == "old"
    assert names(tmp_path) == ["out.json"]


def test_a_resumable_file_is_kept_for_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    def write() -> None:
        with files.replace_file(out, resumable=True) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    with files.replace_file(out, resumable=True) as partial:
        assert partial.read_text() == "half"
    assert names(tmp_path) == ["out.gguf"]


def test_data_reaches_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(files, "sync", lambda path: steps.append(path.name))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    files.write_text(tmp_path / "out", "text")
    assert steps == ["out.partial", "replace", tmp_path.name]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("resumable", [True, False])
def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path: Path, resumable: bool) -> None:
    out, other = tmp_path / "out.json", tmp_path / "other"
    other.write_text("precious")
    files.partial_path(out).symlink_to(other)
    with files.replace_file(out, resumable=resumable) as partial:
        partial.write_text("new")
    assert other.read_text() == "precious"
    assert out.read_text() == "new"


def test_a_second_process_is_refused_by_name_and_may_write_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    program = (
        "import sys; from pathlib import Path; from gguf_golf import files\n"
        "with files.replace_file(Path(sys.argv[1])) as p:\n"
        "    p.write_text('first'); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match=r"out\.json: another process is writing it"):
            files.write_text(out, "second")
        first.communicate()
    assert out.read_text() == "first"
    files.write_text(out, "second")
    assert out.read_text() == "second"
    assert names(tmp_path) == ["out.json"]


def test_a_lock_is_held_once_a_thread_and_refuses_another_thread(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with files.locked(tmp_path / "out"):
                pass
        except InputError as error:
            refused.append(str(error))

    def in_another_thread() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with files.locked(tmp_path / "out"):
        with files.locked(tmp_path / "out"):
            pass
        in_another_thread()  # the inner block's end must not have let go
    assert len(refused) == 1
    in_another_thread()
    assert len(refused) == 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    return folder


def test_an_output_that_is_an_input_is_refused_by_any_name_even_with_force(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text(OURS)
    (tmp_path / "soft").symlink_to(model)
    (tmp_path / "hard").hardlink_to(model)
    for out in (model, tmp_path / "soft", tmp_path / "hard", tmp_path / "." / "model.gguf"):
        for force in (False, True):
            with pytest.raises(InputError, match="is also an input"):
                files.check_output(out, [None, model], mark=MARK, force=force)


def test_an_output_whose_partial_file_is_an_input_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "x.gguf.partial"
    model.write_text("weights")
    with pytest.raises(InputError, match="is also an input"):
        files.check_output(tmp_path / "x.gguf", [model])


def test_a_file_inside_an_input_folder_is_an_input_unless_we_wrote_it(checkpoint: Path) -> None:
    weights, earlier = checkpoint / "model.safetensors", checkpoint / "out.gguf"
    earlier.write_text(OURS)
    with pytest.raises(InputError, match="is also an input"):
        files.check_output(weights, [checkpoint], mark=MARK, force=True)
    files.check_output(earlier, [checkpoint], mark=MARK)
    files.check_output(checkpoint / "new.gguf", [checkpoint], mark=MARK)


def test_a_blob_that_an_input_folder_links_to_is_an_input(checkpoint: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_text("weights")
    (checkpoint / "linked.safetensors").symlink_to(blob)
    with pytest.raises(InputError, match="is also an input"):
        files.check_output(blob, [checkpoint], mark=MARK, force=True)


def test_another_part_of_a_split_input_is_an_input(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for part in parts:
        part.write_text(OURS)
    with pytest.raises(InputError, match="is also an input"):
        files.check_output(parts[1], [parts[0]], mark=MARK, force=True)
    files.check_output(tmp_path / "m-00001-of-00003.gguf", [parts[0]], mark=MARK)


def test_only_a_file_with_the_mark_is_replaced_without_force(tmp_path: Path) -> None:
    out = tmp_path / "notes.json"
    out.write_text("my notes")
    with pytest.raises(InputError, match=r"notes\.json exists.*--force"):
        files.write_text(out, OURS, mark=MARK)
    assert out.read_text() == "my notes"
    files.write_text(out, OURS, mark=MARK, force=True)
    files.write_text(out, OURS + "\n", mark=MARK)
    assert out.read_text() == OURS + "\n"


def test_an_empty_file_is_nobodys_work(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.touch()
    files.write_text(out, OURS, mark=MARK)


@pytest.mark.parametrize("before", [0, files._BLOCK - 3, 2 * files._BLOCK + 5])
def test_a_mark_is_found_across_blocks(tmp_path: Path, before: int) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"\0" * before + MARK + b"\0" * 100)
    files.check_output(out, mark=MARK)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (Path("."), "is a folder"),
        (Path("/"), "is a folder"),
        (Path("/dev/null"), "not a regular file"),
        (Path(__file__) / "out", "is not a folder"),
    ],
)
def test_places_that_no_file_can_have_are_refused(out: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        files.check_output(out)


def test_a_folder_without_permission_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # a test may run as root
    with pytest.raises(InputError, match="no permission to write"):
        files.check_output(tmp_path / "new" / "out.json")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_system_refuses_is_one_line_that_names_the_output(tmp_path: Path, code: int) -> None:
    out = tmp_path / "out.json"

    def write() -> None:
        with files.replace_file(out):
            raise OSError(code, os.strerror(code))

    with pytest.raises(InputError) as caught:
        write()
    assert str(caught.value) == f"{out}: cannot be written ({os.strerror(code)})"


def test_an_input_that_cannot_be_read_is_named_itself(tmp_path: Path) -> None:
    def write() -> None:
        with files.replace_file(tmp_path / "out.json"):
            (tmp_path / "absent").read_text()

    with pytest.raises(InputError, match="absent: No such file"):
        write()
