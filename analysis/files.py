"""Folders of results that are filled at once: files are made beside their places and renamed into them when all are complete.

An interruption before that leaves what was there before, and nothing where nothing was. Other files in the folder stay.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.errors import InputError, Problem, writing

TEMPORARY = ".speckvsim-"


def check_folder(folder: Path) -> None:
    """InputError if nothing can be written to `folder`, before the work that is to be written; leaves nothing behind."""
    with writing(folder):
        place = Path(os.path.realpath(folder))
        there = next(above for above in (place, *place.parents) if above.exists())
        if not there.is_dir():
            what = "is a file; expected a folder" if there == place else f"cannot be written: {there} is not a folder"
            raise InputError(Problem(str(folder), "", what))
        os.rmdir(tempfile.mkdtemp(prefix=TEMPORARY, dir=there))


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """An empty folder to make files in, also in folders of their own; at the end they go to `folder` by renaming."""
    with writing(folder):
        place = Path(os.path.realpath(folder))  # behind symbolic links
        missing = [above for above in (place, *place.parents) if not above.exists()]
        try:
            place.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place))
            try:
                yield aside
                _move(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            for above in missing:
                _remove_if_empty(above)
            raise


def _move(aside: Path, place: Path) -> None:
    """Every name is looked at before the first file moves, so that all of them do or none."""
    targets = {file: place / file.relative_to(aside) for file in sorted(aside.rglob("*")) if file.is_file()}
    for target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, f"{target.name} is a folder")
    for file, target in targets.items():
        os.replace(file, target)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
