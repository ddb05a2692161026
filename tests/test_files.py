"""Files that take the place of others: whole or not at all, and a full disk said in a sentence."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from higcore import Checkpoints
from higcore.training.files import replacing

FULL = r"path '.*run.txt' could not be written \(.*\): it takes about 7 bytes, and \d+ are free on "


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("earlier")
    return path


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(path):
    with replacing(path) as partial:
        partial.write_text("later")
        assert path.read_text() == "earlier"
        assert partial.parent == path.parent
        assert partial.suffix == ".txt"
    assert path.read_text() == "later"
    assert names(path.parent) == ["run.txt"]


def test_folders_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "run.txt") as partial:
        partial.write_text("text")
    assert (tmp_path / "a" / "b" / "run.txt").read_text() == "text"


def write_half(path, size=None, error=None):
    """Write half a file, and the other half unless there is an error."""
    with replacing(path, size) as partial:
        partial.write_text("half")
        if error:
            raise error


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), OSError(errno.EIO, "disk")])
def test_a_failure_leaves_the_old_file_and_nothing_else(path, error):
    with pytest.raises(type(error)) as caught:
        write_half(path, error=error)
    assert caught.value is error
    assert path.read_text() == "earlier"
    assert names(path.parent) == ["run.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_full_disk_wherever_it_shows(path, number, place, monkeypatch):
    full = OSError(number, os.strerror(number))

    def fail(*_):
        raise full

    if place != "write":
        monkeypatch.setattr(os, place, fail)
    with pytest.raises(OSError, match=FULL + "its disk; the previous file is kept$") as caught:
        write_half(path, 7, full if place == "write" else None)
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert path.read_text() == "earlier"
    assert names(path.parent) == ["run.txt"]


def test_a_full_disk_without_an_earlier_file(tmp_path):
    message = "it takes an unknown number of bytes, .* there was no previous file$"
    with pytest.raises(OSError, match=message):
        write_half(tmp_path / "run.txt", error=OSError(errno.ENOSPC, "full"))
    assert not names(tmp_path)


def assert_unwritable(path, kind, reason, write=write_half):
    """Writing fails with a sentence that names the path, and no file that nobody asked for."""
    with pytest.raises(kind) as caught:
        write(path)
    assert type(caught.value) is kind
    number = caught.value.errno
    message = f"path {str(path)!r} could not be written ({os.strerror(number)}){reason}"
    assert str(caught.value) == f"[Errno {number}] {message}"


@pytest.mark.parametrize("write", [write_half, Checkpoints])
def test_a_folder_that_cannot_be_made(path, write):
    folder = f": its folder {str(path)!r} cannot be made"
    assert_unwritable(path / "x.npz", FileExistsError, folder, write)
    folder = f": its folder {str(path / 'a')!r} cannot be made"
    assert_unwritable(path / "a" / "x.npz", NotADirectoryError, folder, write)


def test_a_folder_that_takes_no_files(path):
    assert_unwritable(path.with_name("a." + 249 * "b"), OSError, "")  # the suffix is kept
    if os.path.isdir("/proc/self"):
        assert_unwritable(Path("/proc/self/x.npz"), FileNotFoundError, "")


@pytest.mark.parametrize("stem", [240 * "a", 251 * "a", 125 * "\u00e4", 60 * "\U0001f600"])
def test_names_as_long_as_may_be(tmp_path, stem):
    write_half(tmp_path / f"{stem}.npz")
    assert names(tmp_path) == [f"{stem}.npz"]


def test_calls_within_each_other_do_not_share_a_file(path):
    """A signal handler may save while a save is going on; the last to end has the last word."""
    with replacing(path) as outer:
        outer.write_text("outer, first half")
        with replacing(path) as inner:
            inner.write_text("inner")
        assert path.read_text() == "inner"
        with outer.open("a") as stream:
            stream.write(" and second half")
        assert path.read_text() == "inner"
    assert path.read_text() == "outer, first half and second half"


def test_what_killed_processes_left_is_removed_after_an_hour(path):
    with replacing(path) as old, replacing(path) as fresh, replacing(path.with_name("x")) as other:
        for partial in (old, fresh, other):
            partial.write_text("partial")
        an_hour_ago = time.time() - 3700
        for partial in (old, other):
            os.utime(partial, (an_hour_ago, an_hour_ago))
        with replacing(path) as partial:
            partial.write_text("new")
        assert not old.exists()
        assert fresh.exists()
        assert other.exists()
        old.write_text("old")


def test_everything_is_flushed_before_and_after_the_rename(path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", lambda *pair: (seen.append("rename"), replace(*pair)))
    with replacing(path) as partial:
        partial.write_text("text")
    assert seen == ["file", "rename", "folder"]
