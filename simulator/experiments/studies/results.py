"""The rows of a sweep: a row per point, arm and replication, in the order of the study; no wall times.

    point_id, replication, seed, arm, status (finished | failed), error
    a column per axis path     numbers in SI units, else text as written
    a column per summary key   dotted; lists as JSON text; `measured.` before a key that is also an axis

The table is a function of the study and the journal alone, so the same runs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.experiments.studies.points import Point, scenario_value
from simulator.experiments.studies.runner import Runner

Row = dict[str, Any]
OWN = {
    "point_id": "name of the point's scenario in points/",
    "replication": "0, 1, ...; the same number means the same random numbers at every point and in every arm",
    "seed": "of this replication",
    "arm": "named arm of the study",
    "status": "finished, or failed",
    "error": "why it failed",
}


def flat(document: Mapping[str, Any], above: str = "") -> Row:
    """A nested document as dotted keys; lists as JSON text."""
    found: Row = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return found


def rows(runner: Runner, points: Sequence[Point], replications: Mapping[str, int]) -> Iterator[Row]:
    """A row for each replication of each point whose run is known."""
    for point in points:
        for replication in range(replications[point.id]):
            run = None if point.problem else point.run(replication)
            if run is not None and run.hash not in runner.known:
                continue
            outcome = runner.outcome(point, replication)
            yield {
                "point_id": point.id,
                "replication": replication,
                "seed": run.seed if run else None,
                "arm": point.arm,
                "status": outcome["status"],
                "error": outcome["error"],
                **point.si,
                **{path: scenario_value(path, value) for path, value in point.more.items()},
                **_measured(outcome["summary"], point.si),
            }


def column(metric: str, axes: Mapping[str, Any]) -> str:
    """The column of a summary key."""
    return f"measured.{metric}" if metric in axes else metric


def _measured(summary: Mapping[str, Any] | None, axes: Mapping[str, Any]) -> Row:
    return {column(key, axes): value for key, value in flat(summary or {}).items()}


def write_table(path: Path, table: Sequence[Row], descriptions: Mapping[str, str]) -> None:
    """Parquet; the type of a column follows from its values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in table for name in row))
    arrays, fields = [], []
    for name in names:
        values = [row.get(name) for row in table]
        kind = _type([value for value in values if value is not None])
        if kind == pa.string():
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        metadata = {"description": descriptions[name]} if name in descriptions else None
        arrays.append(pa.array(values, type=kind))
        fields.append(pa.field(name, kind, metadata=metadata))
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path, compression="zstd")


def _type(values: list[Any]) -> Any:
    import pyarrow as pa

    if all(isinstance(value, bool) for value in values) and values:
        return pa.bool_()
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values) and values:
        return pa.int64()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return pa.float64()
    return pa.string()
