"""A recorded vLLM run: a folder or a tar of `meta.json`, `requests.jsonl`, `timeseries.csv` and what else it has.

    meta.json         engine arguments (`engine_kwargs`), start and end, the device on newer runs
    requests.jsonl    a line a request: request_id, input_toks, output_toks, and on one monotonic clock, in s: queued_ts,
                      first_token_ts, last_token_ts; arrival_time on another (may be missing)
    timeseries.csv    t (s since the start), running, waiting and more; may be missing
    config.json       the cluster that its authors say the run was made on; may be missing
    block ids         a JSON-lines file with input_length, output_length, hash_ids (output_hash_ids) whose line i is the
                      request "...-i": inside, or beside the folder or tar. Taken only if all lengths agree

The engine takes requests up between two steps, which is when it stamps queued_ts: up to a step later than they arrived. So
arrivals are arrival_time, the clocks aligned where the two are closest (a request that found the engine between steps); where
it is missing, queued_ts. As a workload the run gives these, the first at 0, the lengths and the ids of full blocks. Without a
file of ids prefix reuse is not recorded, which is said.
Source of the format: github.com/casys-kaist/LLMServingSim `bench/examples`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.prefix_ids import flat
from simulator.workload.requests import Floats, HashIds, Ints, Requests

REQUESTS = "requests.jsonl"
COUNTS = ("input_toks", "output_toks")
TIMES = ("queued_ts", "first_token_ts", "last_token_ts")
MOST_LAG = 1.0  # s from an arrival to queued_ts: longer than any step
MOST_BYTES = 256 * 2**20  # of one file
BLOCKS = (16, 32, 64, 128, 256, 512, 8, 1)  # tokens of a block that an id may stand for, the likely first


@dataclass(frozen=True, eq=False)
class VllmRun:
    """One run; its arrays are in order of arrival, times in s from the first arrival."""

    name: str
    meta: dict[str, Any]
    config: dict[str, Any]
    arrival: Floats
    queued: Floats
    first_token: Floats
    last_token: Floats
    input_tokens: Ints
    output_tokens: Ints
    series: dict[str, Floats]  # columns of timeseries.csv, t in s from the first arrival; empty: none
    ids: HashIds | None = None
    output_ids: HashIds | None = None
    id_tokens: int = 0
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def requests(self) -> Requests:
        return Requests(
            self.arrival, self.input_tokens, self.output_tokens, self.ids, self.id_tokens, self.name, self.notes,
            output_ids=self.output_ids,
        )  # fmt: skip


def is_run(path: str | Path) -> bool:
    """A folder with a `requests.jsonl`, or a tar."""
    path = Path(path)
    try:
        return (path / REQUESTS).is_file() if path.is_dir() else path.is_file() and tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):  # a damaged gzip file: its own reader says so
        return False


def read_run(path: str | Path) -> VllmRun:
    """The run at a folder or tar; InputError with all that is wrong."""
    path = Path(path)
    files = _files(path)
    missing = [name for name in ("meta.json", REQUESTS) if name not in files]
    if missing:
        near = " ".join(hint for name in missing if (hint := did_you_mean(name, files)))
        raise InputError([Problem(str(path), "", f"has no {name}; expected a recorded vLLM run", near) for name in missing])
    meta = _object(files["meta.json"], f"{path}/meta.json")
    config = _object(files["config.json"], f"{path}/config.json") if "config.json" in files else {}
    rows = _requests(files[REQUESTS], f"{path}/{REQUESTS}")
    come = _arrivals(rows)
    order = sorted(range(len(rows)), key=lambda index: (come[index], index))
    ordered = [rows[index] for index in order]
    arrival = np.array([come[index] for index in order])
    queued, first, last = (np.array([row[name] for row in ordered]) - arrival[0] for name in TIMES)
    arrival = arrival - arrival[0]
    prompt, output = (np.array([row[name] for row in ordered], dtype=np.int64) for name in COUNTS)
    name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    lag = _lag(meta, ordered[0])
    series = _series(files["timeseries.csv"], f"{path}/timeseries.csv", lag) if "timeseries.csv" in files else {}
    found = _ids(path, files, rows)
    if found is None:
        note = "prefix reuse not recorded: no file of block ids with these requests inside the run or beside it"
        return VllmRun(name, meta, config, arrival, queued, first, last, prompt, output, series, notes=(note,))
    chains, tokens, source = found
    ids, outputs = (flat([chains[index][part] for index in order]) for part in (0, 1))
    shared = {"ids": ids, "output_ids": outputs, "id_tokens": tokens, "notes": (f"block ids from {source}",)}
    return VllmRun(name, meta, config, arrival, queued, first, last, prompt, output, series, **shared)  # type: ignore[arg-type]


def run_rows(path: str | Path) -> list[dict[str, Any]]:
    """The requests of a run as its file has them, checked."""
    path = Path(path)
    return _requests(_files(path)[REQUESTS], f"{path}/{REQUESTS}")


def _files(path: Path) -> dict[str, bytes]:
    """The plain files of the run by base name."""
    try:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.is_file() and file.stat().st_size <= MOST_BYTES]
            return {file.name: file.read_bytes() for file in inside}
        with tarfile.open(path) as tar:
            return {
                Path(member.name).name: tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar.getmembers()
                if member.isfile() and member.size <= MOST_BYTES
            }
    except (OSError, tarfile.TarError, EOFError) as error:
        message = f"is neither a folder nor a tar of a recorded vLLM run ({str(error).splitlines()[0]})"
        raise InputError(Problem(str(path), "", message)) from None


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise InputError(Problem(where, "", f"not JSON: {error}")) from None
    if not isinstance(found, dict):
        raise InputError(Problem(where, "", "expected a JSON object"))
    return found


def _requests(data: bytes, where: str) -> list[dict[str, Any]]:
    """The requests in file order, checked; a line without any of the fields is a problem, all are told."""
    rows, problems = [], []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(Problem(place, "", f"not JSON: {error}"))
            continue
        wrong = _wrong(row, place)
        problems += wrong
        if not wrong:
            rows.append(row)
    if not rows and not problems:
        problems.append(Problem(where, "", "no requests; expected at least one line"))
    if problems:
        raise InputError(problems[:20])
    return rows


def _arrivals(rows: list[dict[str, Any]]) -> list[float]:
    """When each request arrived, on the clock of queued_ts."""
    stamps = [row.get("arrival_time") for row in rows]
    if any(isinstance(stamp, bool) or not isinstance(stamp, int | float) or not isfinite(stamp) for stamp in stamps):
        return [float(row["queued_ts"]) for row in rows]
    lags = [row["queued_ts"] - stamp for row, stamp in zip(rows, stamps, strict=True)]
    if max(lags) - min(lags) > MOST_LAG:
        return [float(row["queued_ts"]) for row in rows]  # another clock than it seems, or a client that queues itself
    return [stamp + min(lags) for stamp in stamps]


def _wrong(row: Any, place: str) -> list[Problem]:
    if not isinstance(row, dict):
        return [Problem(place, "", "expected a JSON object")]
    problems = []
    for name in (*COUNTS, *TIMES):
        if name not in row:
            problems.append(Problem(place, name, "missing", did_you_mean(name, row)))
            continue
        value, count = row[name], name in COUNTS
        if isinstance(value, bool) or not isinstance(value, int if count else (int, float)) or not isfinite(value):
            expected = "a whole number of tokens" if count else "a time in s"
            problems.append(Problem(place, name, f"{value!r} found; expected {expected}"))
        elif count and value < 1:
            problems.append(Problem(place, name, f"{value} found; expected at least 1 token"))
    if not problems and not row["queued_ts"] <= row["first_token_ts"] <= row["last_token_ts"]:
        message = "times are out of order; expected queued <= first token <= last token"
        problems.append(Problem(place, "first_token_ts", message))
    return problems


def _lag(meta: dict[str, Any], first: dict[str, Any]) -> float:
    """Seconds from the start of the run, where its series begins, to the first arrival; 0 if not recorded."""
    from datetime import datetime

    try:
        began = datetime.fromisoformat(str(meta["started_at"]).replace("Z", "+00:00")).timestamp()
        lag = float(first["arrival_time"]) - began
    except (KeyError, TypeError, ValueError):
        return 0.0
    return lag if 0.0 <= lag < 60.0 else 0.0


def _series(data: bytes, where: str, lag: float) -> dict[str, Floats]:
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace"))))
    missing = [name for name in ("t", "running", "waiting") if rows and name not in rows[0]]
    if missing:
        raise InputError([Problem(f"{where}:1", name, "missing column", did_you_mean(name, rows[0])) for name in missing])
    try:
        columns = {name: np.array([float(row[name]) for row in rows]) for name in ("t", "running", "waiting")}
    except (TypeError, ValueError) as error:
        raise InputError(Problem(where, "", f"expected numbers: {error}")) from None
    columns["t"] = columns["t"] - lag
    return columns


Chains = list[tuple[list[int], list[int]]]


def _ids(path: Path, files: dict[str, bytes], rows: list[dict[str, Any]]) -> tuple[Chains, int, str] | None:
    """The first file of block ids that fits: ids of prompts and of answers in file order, tokens of a block, its name."""
    inside = [(name, data) for name, data in files.items() if name != REQUESTS and ".jsonl" in name]
    beside = [file for file in sorted(path.resolve().parent.iterdir()) if ".jsonl" in file.name and _has_ids(file)]
    for name, data in [*inside, *((file.name, None) for file in beside)]:
        raw = data if data is not None else (path.resolve().parent / name).read_bytes()
        chains = _chains(raw, rows)
        if chains is None:
            continue
        tokens = _block_tokens([len(chain) for chain, _ in chains], [row["input_toks"] for row in rows])
        if tokens:
            return chains, tokens, name
    return None


def _has_ids(file: Path) -> bool:
    """A file whose first line has ids of blocks; others beside the run are not read further."""
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return False
        with file.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else file.open("rb") as stream:
            return b'"hash_ids"' in stream.readline(2**20)
    except (OSError, EOFError, zlib.error):
        return False


def _chains(raw: bytes, rows: list[dict[str, Any]]) -> Chains | None:
    """Ids of each request of `rows`, or None where the file is something else or of other requests."""
    try:
        lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode().splitlines()
        if not lines or "hash_ids" not in lines[0]:
            return None
        table = [json.loads(line) for line in lines if line.strip()]
        chains: Chains = []
        for position, row in enumerate(rows):
            number = str(row.get("request_id", "")).rpartition("-")[2]
            one = table[int(number) if number.isdigit() else position]
            if (one["input_length"], one["output_length"]) != (row["input_toks"], row["output_toks"]):
                return None
            chains.append(([int(value) for value in one["hash_ids"]], [int(value) for value in one.get("output_hash_ids", [])]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return None
    return chains


def _block_tokens(counts: list[int], lengths: list[int]) -> int:
    """Tokens of a block such that every prompt has an id for each full block, or for each begun one; 0: none fits."""
    for size in BLOCKS:
        if all(count in (length // size, -(-length // size)) for count, length in zip(counts, lengths, strict=True)):
            return size
    return 0
