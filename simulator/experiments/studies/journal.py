"""The sweep folder: what is finished is on disk, whatever happens next.

    study.yaml         the study as it was run, the base included; runs as it is
    runs/HASH.json     the journal: one file a finished run, written under another name and renamed
    points/ID.yaml     each point as a scenario that runs by itself (replication 0)
    results.parquet    the rows, rebuilt from the journal          insight.json, insight/*.parquet   what they say

A file that is not whole (power cut) counts as absent. The folder belongs to one study: another one is refused with the
difference, but for `analyses` and `metrics`, which change no run. One process at a time writes to it.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from simulator.errors import InputError, Problem
from simulator.experiments.store import RESULTS, TEMPORARY
from simulator.experiments.studies.load import Study
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.worker import Outcome
from simulator.scenario.document import to_yaml
from simulator.scenario.yaml_source import read_file

STUDY, ROWS, INSIGHT, SEARCH = "study.yaml", "results.parquet", "insight.json", "search.json"
_FREE = ("analyses", "metrics")  # parts of a study that may change in its folder
LONGEST_DIFFERENCE = 30  # lines


class Halted(InputError):
    """The folder can hold no more, or work was stopped; what is finished is kept."""

    def __init__(self, message: str):
        self.message = message
        super().__init__([])

    def __str__(self) -> str:
        return self.message


def default_folder(study: Study) -> Path:
    """results/NAME-HASH."""
    name = re.sub(r"[^\w.-]+", "-", study.name)[:48].strip("-.")
    return RESULTS / f"{name or 'study'}-{study.sha256[:8]}"


class Journal:
    """One sweep folder."""

    def __init__(self, folder: Path, study: Study):
        self.folder, self.study = folder, study
        self._lock: IO[str] | None = None
        self._written: set[str] = set()  # points

    def open(self) -> None:
        """Make the folder, or check that it is this study's; InputError otherwise."""
        with self._writing():
            if self.folder.exists() and not self.folder.is_dir():
                raise InputError(Problem(str(self.folder), "", "is a file; expected a folder"))
            fresh = not self.folder.exists() or not any(self.folder.iterdir())
            if not fresh:
                self._check_study()
            for name in ("runs", "points"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if fresh or to_yaml(read_file(self.folder / STUDY).data) != self.study.to_yaml():
                self.write(STUDY, self.study.to_yaml())
        for left_over in self.folder.rglob(f"{TEMPORARY}*"):
            left_over.unlink(missing_ok=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def outcome(self, run: str) -> Outcome | None:
        """A finished run of the journal."""
        try:
            found: Outcome = json.loads((self.folder / "runs" / f"{run}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("status") in ("finished", "failed") else None

    def record(self, run: str, seed: int, outcome: Outcome) -> None:
        document = {"run": run, "seed": seed, **outcome}
        self.write(f"runs/{run}.json", json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")

    def write_point(self, point: Point) -> None:
        """The scenario of a point, unless it is there."""
        if point.id in self._written:
            return
        self._written.add(point.id)
        if not (self.folder / "points" / f"{point.id}.yaml").exists():
            self.write(f"points/{point.id}.yaml", to_yaml(point.resolved.document))

    def write(self, name: str, text: str) -> None:
        """A text file, complete or not at all."""
        with self.replacing(name) as new:
            new.write_text(text, encoding="utf-8")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A path to write to; it becomes `name` when all went well, and vanishes when not."""
        place = self.folder / name
        with self._writing():
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix=TEMPORARY, dir=place.parent)
            os.close(handle)
            new = Path(path)
            try:
                yield new
                new.chmod(0o644)
                new.replace(place)
            except BaseException:
                new.unlink(missing_ok=True)
                raise

    def kept(self) -> int:
        """Runs in the journal."""
        return sum(1 for _ in (self.folder / "runs").glob("*.json"))

    def _check_study(self) -> None:
        if not (self.folder / STUDY).is_file():
            message = f"is not a sweep (has no {STUDY}) and is not written to; expected a new or empty folder or a sweep"
            raise InputError(Problem(str(self.folder), "", message))
        old, new = (_lines(document) for document in (read_file(self.folder / STUDY).data, self.study.document))
        if old != new:
            lines = list(difflib.unified_diff(old, new, "there", "now", lineterm="", n=1))
            shown = "\n    ".join(lines[:LONGEST_DIFFERENCE])
            more = f"\n    ... {len(lines) - LONGEST_DIFFERENCE} more lines" if len(lines) > LONGEST_DIFFERENCE else ""
            message = f"holds another study; the difference:\n    {shown}{more}"
            raise InputError(Problem(str(self.folder), "", message, "choose another folder with --out, or remove this one"))

    def _take_lock(self) -> None:
        """The lock of an open file goes with its process, however that ends."""
        try:
            import fcntl
        except ImportError:  # not on this platform
            return
        self._lock = open(self.folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115 (held until `close`)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InputError(Problem(str(self.folder), "", "another sweep is running in this folder")) from None
        except OSError:  # a file system without locks
            self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                what = (error.strerror or "no space left").lower()
                kept = f"{self.kept()} finished runs are kept" if (self.folder / "runs").is_dir() else "nothing was run"
                raise Halted(f"{self.folder}: {what}; {kept}; free some space, and the same command goes on") from error
            raise InputError(Problem(str(self.folder), "", f"cannot be written: {error.strerror or error}")) from error


def _lines(document: dict[str, Any]) -> list[str]:
    return to_yaml({key: value for key, value in document.items() if key not in _FREE}).splitlines()
