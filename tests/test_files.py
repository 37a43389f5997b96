"""Folders of results: filled at once or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.files import check_folder, filled
from simulator.errors import InputError


def test_all_files_or_none(tmp_path: Path) -> None:
    """An interruption leaves what was there, and no folder that was made for it; what is not ours stays.

    Would catch: files that are written in place, a parent that is left behind.
    """
    (tmp_path / "one").write_text("before")
    for folder in (tmp_path, tmp_path / "new" / "folder"):
        with pytest.raises(KeyboardInterrupt), filled(folder) as aside:
            (aside / "one").write_text("half")
            raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("one", "before")]
    (tmp_path / "mine").write_text("mine")
    with filled(tmp_path) as aside:
        (aside / "below").mkdir()
        (aside / "below" / "two").write_text("2")
        (aside / "one").write_text("after")
    found = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"one": "after", "mine": "mine", "below/two": "2"}


def test_a_place_that_is_taken_moves_nothing(tmp_path: Path) -> None:
    """A folder where a file should go. Would catch: the first files moved before the last is refused."""
    (tmp_path / "z").mkdir()
    with pytest.raises(InputError, match=r"cannot be written: z is a folder"), filled(tmp_path) as aside:
        (aside / "a").write_text("")
        (aside / "z").write_text("")
    assert [file.name for file in tmp_path.iterdir()] == ["z"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Refused before the work is done. Would catch: a look that leaves a folder behind."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=r"not a folder|is a file|cannot be written"):
            check_folder(folder)
    check_folder(tmp_path / "new" / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
