"""Files that never lie: written whole or not at all, and read with suspicion."""

import errno
import os
import pickle
import random
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from minicontrolnet.errors import Problem
from minicontrolnet.run.files import check_place, check_plain, load_file, save_file, set_aside, write_and_keep, write_file

CONTENT = {"x": torch.arange(3000.0), "n": [1, "two"]}


def same(a, b):
    """Whether two contents like CONTENT are equal to the last bit."""
    return a.keys() == b.keys() and torch.equal(a["x"], b["x"]) and a["n"] == b["n"]


def sentence(caught):
    """The Problem's message, which is one sentence."""
    message = str(caught.value)
    assert "\n" not in message and ". " not in message
    return message


@pytest.fixture
def file(tmp_path):
    """A file that holds CONTENT."""
    save_file(CONTENT, tmp_path / "file.pt")
    return tmp_path / "file.pt"


# %% Writing


def test_what_is_saved_is_loaded(tmp_path):
    """Missing folders are made, tensors and plain values come back; no rest is left."""
    path = tmp_path / "a" / "b" / "file.pt"
    save_file(CONTENT, path)
    assert same(load_file(path), CONTENT) and list(path.parent.iterdir()) == [path]


def test_a_new_file_takes_the_place_of_the_old_one_at_once(file, tmp_path):
    """The old bytes are never written over: a second name for them still has them."""
    second = tmp_path / "second.pt"
    os.link(file, second)
    save_file("new", file)
    assert load_file(file) == "new" and same(load_file(second), CONTENT)


def test_a_file_where_a_folder_should_be_is_named(file):
    """One sentence without the system's number and without the name of the temporary file."""
    for path in (file / "a.txt", file / "b" / "a.txt"):
        with pytest.raises(Problem, match="is not a folder") as caught:
            write_file(path, b"")
        assert f"{file} is not a folder" in sentence(caught) and "Errno" not in sentence(caught)


def test_a_file_that_is_set_aside_keeps_its_content_and_each_backup_its_name(tmp_path):
    path = tmp_path / "note.txt"
    for number in (1, 2):
        path.write_text(f"{number}")
        assert set_aside(path) == tmp_path / f"note.backup{number}.txt" and not path.exists()
    assert [(tmp_path / f"note.backup{number}.txt").read_text() for number in (1, 2)] == ["1", "2"]


def test_bytes_are_written_as_they_are(tmp_path):
    """A new file, a longer one in its place, and an empty one."""
    path = tmp_path / "note.txt"
    for data in (b"old", b"newer", b""):
        write_file(path, data)
        assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_write_that_fails_leaves_what_was_there(fails, file, monkeypatch):
    """The disk fills up half way, or the last step is refused: the old bytes stay, and no temporary file is left."""
    before = file.read_bytes()

    def refuse(*given):
        raise OSError("no space left")

    monkeypatch.setattr(os, {"write": "fsync", "replace": "replace"}[fails], refuse)
    with pytest.raises(Problem, match="no space left") as caught:
        save_file({}, file)
    assert str(file) in sentence(caught) and file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("number, is_full", [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.ENOENT, False),
                                             (errno.EEXIST, False), (errno.EACCES, False)])
def test_space_is_the_advice_only_where_space_is_short(number, is_full, file, monkeypatch):
    """A name below /dev/null or in /proc needs another place, and no free space."""

    def refuse(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Problem, match="give another name") as caught:
        save_file({}, file)
    assert ("free some space" in sentence(caught)) == is_full


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_errors_of_the_content_are_not_blamed_on_the_disk(error, file, monkeypatch):
    """A value that cannot be saved is a mistake of the caller, and the file stays as it was."""

    def refuse(content, buffer):
        raise error("not for saving")

    monkeypatch.setattr(torch, "save", refuse)
    before = file.read_bytes()
    with pytest.raises(error, match="not for saving") as caught:
        save_file({"x": 1}, file)
    assert not isinstance(caught.value, Problem)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_ctrl_c_during_a_write_leaves_what_was_there(file, monkeypatch):
    before = file.read_bytes()

    def press(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", press)
    with pytest.raises(KeyboardInterrupt):
        save_file({}, file)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_followed_and_stays(file, tmp_path):
    """What it names is replaced, through two links too; a link to nothing is filled."""
    link, second, empty = (tmp_path / name for name in ("link", "second", "empty"))
    link.symlink_to(file)
    second.symlink_to(link)
    empty.symlink_to(tmp_path / "new" / "target.pt")
    save_file("new", second)
    save_file("filled", empty)
    assert all(path.is_symlink() for path in (link, second, empty))
    assert not file.is_symlink() and load_file(file) == load_file(second) == "new"
    assert load_file(tmp_path / "new" / "target.pt") == "filled"


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path):
    """A folder in the file's place, or a file in the folder's, stays as it is."""
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("mine")
    for path in (folder, file / "run.pt", tmp_path / ("x" * 300)):
        with pytest.raises(Problem, match="cannot write") as caught:
            save_file({}, path)
        assert str(path) in sentence(caught)
    assert sorted(tmp_path.iterdir()) == [file, folder] and file.read_text() == "mine"
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there are no such files there")
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_what_is_no_plain_file_is_refused(kind, tmp_path):
    """A pipe, a device, also behind a link: one sentence, and it is still there."""
    path = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path = path if kind == "link to a device" else os.devnull
        if kind == "link to a device":
            path.symlink_to(os.devnull)
    with pytest.raises(Problem, match="not a plain file") as caught:
        save_file(CONTENT, path)
    assert str(path) in sentence(caught)
    assert not stat.S_ISREG(os.stat(path).st_mode)
    assert list(tmp_path.iterdir()) == ([] if kind == "device" else [path])


def test_a_place_is_checked_and_left_as_it_was(file, tmp_path):
    """A good one is silent and keeps its bytes; a folder or a file's child is told."""
    before = file.read_bytes()
    check_place(file)
    check_place(tmp_path / "new.pt")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    for path in (tmp_path, file / "run.pt"):
        with pytest.raises(Problem, match="cannot write"):
            check_place(path)


def test_what_killed_writes_left_is_removed_after_an_hour(tmp_path):
    """Only temporary files of the same name, and none that may still be written."""
    old, young, other, mine = (tmp_path / f".{name}" for name in ("a.pt.1", "a.pt.2", "b.pt.1", "a.pt.old"))
    for path in (old, young, other, mine):
        path.write_text("rest")
        os.utime(path, None if path == young else (0, 0))
    save_file({}, tmp_path / "a.pt")
    assert {*tmp_path.iterdir()} == {young, other, mine, tmp_path / "a.pt"}


# %% Reading


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    """It is named, and what to do."""
    with pytest.raises(Problem, match="nowhere.pt does not exist") as caught:
        load_file(tmp_path / "nowhere.pt")
    sentence(caught)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_a_problem(share, file):
    """A file cut anywhere, or empty, is named as damaged."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(Problem, match="file.pt") as caught:
        load_file(file)
    sentence(caught)


def test_a_flipped_bit_is_a_problem_and_never_a_wrong_weight(file):
    """After each of 100 flips the file is refused, unless the bit was padding."""
    content, position, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(100):
        damaged, bit = bytearray(content), position.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert same(load_file(file), CONTENT)
        except Problem:
            refused += 1
    assert refused > 80


@pytest.mark.parametrize("write", [
    lambda path: path.write_text("not weights"),
    lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    lambda path: path.mkdir(),
], ids=["text", "picture", "folder"])
def test_something_else_is_a_problem(write, tmp_path):
    """A text, a picture or a folder in the place of weights."""
    path = tmp_path / "foreign.pt"
    write(path)
    with pytest.raises(Problem, match="foreign.pt") as caught:
        load_file(path)
    sentence(caught)


@pytest.mark.skipif(os.name == "nt", reason="there are no such files there")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """To open it would wait until somebody writes; a device is no file of weights, either."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(Problem, match="not a plain file") as caught:
            load_file(path)
        assert str(path) in sentence(caught)


@pytest.mark.parametrize("odd", [
    torch.tensor([1.0, torch.nan]), torch.tensor(torch.inf, dtype=torch.bfloat16), torch.zeros(2) * 1j,
    torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")], ids=str)
def test_odd_tensors_are_a_problem_wherever_they_are(odd, tmp_path):
    """Not finite, complex, sparse or without numbers, deep in lists and dicts."""
    for content in (odd, {"a": [1, {"b": (None, odd)}]}):
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(Problem, match="odd.pt") as caught:
            load_file(tmp_path / "odd.pt")
        sentence(caught)


class Trap:
    """A pickle of this creates a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_code_in_a_file_does_not_run(tmp_path):
    """A pickle with code is refused unread: bare, in torch's archive, among weights."""
    target = tmp_path / "caught"
    pickle.loads(pickle.dumps(Trap(target))).close()
    target.unlink()  # the trap does work
    bare, archive, inside = (tmp_path / name for name in ("bare", "archive", "inside"))
    bare.write_bytes(pickle.dumps(Trap(target)))
    torch.save(Trap(target), archive)
    torch.save({**CONTENT, "n": Trap(target)}, inside)
    for path in (bare, archive, inside):
        with pytest.raises(Problem, match=path.name):
            load_file(path)
        assert not target.exists()


def test_what_is_no_bytes_and_what_cannot_be_pickled_is_a_problem(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(Problem, match="are a str; give bytes"):
        write_file(path, "text")
    with pytest.raises(Problem, match="give tensors and plain values"):
        save_file({"a": lambda: 1}, path)
    assert not path.exists()


def test_what_somebody_edited_becomes_a_backup(tmp_path, capsys):
    path = tmp_path / "marks.csv"
    for data in (b"one", b"one", b"two", b"three"):
        write_and_keep(path, data)
    assert path.read_bytes() == b"three"
    assert [(tmp_path / f"marks.backup{i}.csv").read_bytes() for i in (1, 2)] == [b"one", b"two"]
    assert capsys.readouterr().out.count("that was here is now") == 2 and len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_private_file_stays_private(tmp_path):
    path = tmp_path / "private.pt"
    write_file(path, b"old")
    path.chmod(0o600)
    write_file(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600


def test_a_write_protected_file_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "good.pt"
    write_file(path, b"good")
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # the superuser may write everywhere
    for write in (lambda: write_file(path, b"new"), lambda: check_place(path)):
        with pytest.raises(Problem, match="write-protected"):
            write()
    assert path.read_bytes() == b"good"


@pytest.mark.parametrize("content", [{"loss": np.float64(1.5)}, {"a": np.ones(2)}, {"a": torch.tensor(float("nan"))},
                                     [Path("x")], {np.int64(1): 2}, {"a": {1, 2}}])
def test_what_could_not_be_read_again_is_not_written(content, tmp_path):
    path = tmp_path / "content.pt"
    with pytest.raises(Problem, match="its content has a"):
        save_file(content, path)
    assert not path.exists()


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU, for machines without one."""

    @property
    def device(self):
        return torch.device("cuda", 0)


def test_the_state_of_a_training_on_a_gpu_may_be_saved():
    """Only the file's reader brings tensors to the CPU. So the check before saving must not ask for it."""
    tensor = torch.ones(2).as_subclass(OnGpu)
    assert tensor.device.type == "cuda"
    check_plain({"weights": [tensor]}, "the content")
    with pytest.raises(Problem, match="not finite"):
        check_plain({"weights": [tensor / 0]}, "the content")
    with pytest.raises(Problem, match="of an unusual kind"):
        check_plain(torch.ones(2, device="meta"), "the content")
