from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.atomic import UNFINISHED, atomic_path, translate_os_errors
from pipeline.errors import InputError, WriteError


def test_the_unfinished_file_stands_beside_its_place_and_is_swept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.fits") as partial:
        partial.touch()
        assert list(tmp_path.glob(UNFINISHED)) == [partial]
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


def test_a_former_file_survives_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")

    def fail() -> None:
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"a\.txt: cannot be written: No space .*disk is full"):
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(WriteError, match="cannot be written"), atomic_path(path):
            pass


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        pytest.raises(WriteError, match="there is a folder of this name"),
        atomic_path(tmp_path / "a") as partial,
    ):
        partial.touch()


def test_links_and_devices_are_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "a.txt", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (link, "a symbolic link"), (tmp_path / "pipe", "regular"), (Path("/dev/null"), "regular"),
    ):  # fmt: skip
        with pytest.raises(WriteError, match=what), atomic_path(path) as partial:
            partial.touch()
    assert link.is_symlink()
    assert target.read_text() == "before"
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR])
def test_errors_of_the_system_become_one_line(tmp_path: Path, code: int) -> None:
    with pytest.raises(InputError, match=os.strerror(code)), translate_os_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), translate_os_errors(tmp_path):
        (tmp_path / "none").read_text()
