"""The run folder: written beside its place under another name, complete, and only then renamed.

    scenario.resolved.yaml   every value explicit; runs as it is
    summary.json             the summary; `null` where a number does not exist
    explain.json             what `explain` says: every value with its source, capacities, paths, bounds
    timeline.json.gz         with --timeline: a Chrome trace
    requests.parquet         a row a request        timeseries.parquet   a row a time bin
    itl.parquet              gaps between tokens: a logarithmic histogram with bins 0.5 % wide
                             (what a column means is in its field metadata, key `description`)

Same scenario and seed give the same bytes, but for the `simulation` block of the summary. A folder that holds anything
but a run of ours is never replaced.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

    from simulator.experiments.run import RunResult
    from simulator.scenario import Scenario

SUMMARY = "summary.json"
EXPLAINED = "explain.json"
RUN_FILES = frozenset(
    {"scenario.resolved.yaml", SUMMARY, EXPLAINED, "requests.parquet", "timeseries.parquet", "itl.parquet"}
    | {"timeline.json.gz", "figures", "report.html"}
)
RESULTS = Path("results")
TEMPORARY = ".speckvsim-"
LONGEST_NAME = 48  # characters; of up to four bytes each, and file systems allow 255


def default_folder(scenario: Scenario) -> Path:
    """results/NAME-HASH; whatever the scenario is called, directly below `results`."""
    name = re.sub(r"[^\w.-]+", "-", scenario.resolved.name)[:LONGEST_NAME].strip("-.")
    return RESULTS / f"{name or 'scenario'}-{scenario.sha256[:8]}"


def check_folder(folder: Path) -> None:
    """InputError if a run cannot be written to `folder`; touches nothing."""
    try:
        _check_place(folder, _place(folder))
    except OSError as error:  # no permission to look, a name that is too long
        raise _refused(folder, f"cannot be written: {error.strerror or error}") from error


def _check_place(folder: Path, place: Path) -> None:
    if Path.cwd().is_relative_to(place):
        raise _refused(folder, "is the current folder or above it; expected another one")
    if place.exists():
        _check_replaceable(folder, place)
    parent = next(above for above in place.parents if above.exists())
    if not parent.is_dir():
        raise _refused(folder, f"cannot be made: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _refused(folder, f"cannot be written: no permission in {parent}")


def write_run(result: RunResult, folder: Path) -> None:
    """Write the run folder, in place of an earlier run there."""
    from simulator.experiments.explain import explain
    from simulator.metrics import requests, timeseries

    try:
        with _new_folder(folder) as new:
            (new / "scenario.resolved.yaml").write_text(result.scenario.to_yaml(), encoding="utf-8")
            _write_table(result.requests, requests.COLUMNS, new / "requests.parquet")
            _write_table(result.timeseries, timeseries.COLUMNS, new / "timeseries.parquet")
            _write_table(result.token_gaps, requests.GAP_COLUMNS, new / "itl.parquet")
            (new / EXPLAINED).write_text(to_json(explain(result.scenario, result.work)), encoding="utf-8")
            if result.timeline is not None:
                _write_timeline(result.timeline, new / "timeline.json.gz")
            (new / SUMMARY).write_text(to_json(result.summary), encoding="utf-8")
    except OSError as error:
        raise _refused(folder, f"cannot be written: {error.strerror or error}") from error


def _write_timeline(document: Mapping[str, Any], path: Path) -> None:
    """Compact, and without a date: the same run gives the same bytes."""
    import gzip

    text = json.dumps(_plain(document), separators=(",", ":"), allow_nan=False)
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0))


def to_json(document: Any) -> str:
    """JSON text with a final newline; numbers that are not finite become null, keys keep their order."""
    return json.dumps(_plain(document), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    return None if isinstance(value, float) and not isfinite(value) else value


def _write_table(table: pd.DataFrame, descriptions: Mapping[str, str], path: Path) -> None:
    """Parquet with the description of each column in the metadata of its field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        field.with_metadata({"description": descriptions[field.name]}) if field.name in descriptions else field
        for field in arrow.schema
    ]
    pq.write_table(arrow.cast(pa.schema(fields, metadata=arrow.schema.metadata)), path)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling of `folder` that takes its place at the end, or vanishes with all parents made for it."""
    place = _place(folder)
    missing = [above for above in (place.parent, *place.parent.parents) if not above.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place.parent))
    try:
        new = aside / "new"
        new.mkdir()  # with the usual permissions, unlike `aside`
        yield new
        _swap(folder, place, new, aside / "old")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for above in missing:
            _remove_if_empty(above)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _swap(folder: Path, place: Path, new: Path, old: Path) -> None:
    if place.exists():
        _check_replaceable(folder, place)  # again: it may have changed while the simulation ran
        place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise


def _check_replaceable(folder: Path, place: Path) -> None:
    if not place.is_dir():
        raise _refused(folder, "is a file; expected a folder")
    found = {entry.name for entry in place.iterdir()}
    foreign = sorted(found - RUN_FILES)
    if found and (foreign or SUMMARY not in found):
        what = f"has '{foreign[0]}' in it" if foreign else f"has no {SUMMARY}"
        raise _refused(folder, f"is not a run ({what}) and is not replaced; expected a new or empty folder or a run")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _place(folder: Path) -> Path:
    """Where the folder really is: behind symbolic links, so that a rename replaces the folder and not the link."""
    return Path(os.path.realpath(folder))


def _refused(folder: Path, message: str) -> InputError:
    return InputError(Problem(str(folder), "", message))
