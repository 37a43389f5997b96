"""The run as a Chrome trace for Perfetto: what happened when, bounded in size.

Tracks (times in microseconds; slices of a track follow each other):

    GPU steps       a slice per step: batch, prompt tokens, context; inside it host, exposed waits, work
    STAGE           a slice per step and stage of the path (links, ports, engines, memory): how long its bytes take at its
                    capacity, so that the slices of a stage sum to its busy time; write-back stands where it was given up
    prompt pieces   a span per chunk of a prompt        requests  arrival to last token
    counters        queue, batch, bytes in each tier (the highest of the steps that share a slice)
    instants        pages prefetched in time, late, wasted in a step
    arrows          from the reads set in motion in a step to the step, where it used prefetched pages

Bounded: at most `MOST_SLICES` slices of steps; where the window has more, neighbours share one (`steps` says how many,
`dur` is the sum of theirs), so that totals stay what they are. Requests and pieces beyond `MOST_SPANS` are sampled evenly.
Not modelled: pages that are read for the next step's first layers are drawn with the step that set them in motion.
Events: none; all is computed from the recorded columns after the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_use import by_step
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import WAITS, WORK, Steps
from simulator.metrics.traffic import Traffic

MOST_SLICES, MOST_SPANS = 8000, 5000
STEPS_TRACK, FIRST_STAGE = 1, 10

Floats = NDArray[np.float64]
Event = dict[str, Any]


@dataclass(frozen=True)
class StageWeights:
    """A stage of the path: capacity (wire bytes/s), wire bytes per raw byte read and written (0: not on that way)."""

    name: str
    rate: float
    read: float
    write: float


@dataclass(frozen=True)
class Track:
    """A replica: its requests (`columns`, numbered as in its `recorder`), bytes in use by tier, traffic, stages of its path."""

    name: str
    recorder: Recorder
    steps: Steps
    columns: dict[str, NDArray[Any]]
    held: dict[str, tuple[float, NDArray[Any]]]
    traffic: Traffic
    stages: list[StageWeights]


def timeline(tracks: Sequence[Track], window: tuple[float, float] = (0.0, inf)) -> dict[str, Any]:
    """The document of the trace; steps that begin in the window. Each replica is a process of it."""
    events: list[Event] = []
    totals: dict[str, float] = {}
    count, each = 0, 1
    for number, track in enumerate(tracks):
        found, own, steps, together = _replica(track, window, MOST_SLICES // len(tracks))
        count, each = count + steps, max(each, together)
        for name, seconds in own.items():
            totals[name] = totals.get(name, 0.0) + seconds
        for event in found if number else ():
            event["pid"] = number
            if "id" in event:
                event["id"] = f"{number}.{event['id']}"
        events += found
    events.sort(key=lambda event: event.get("ts", -1.0))  # stable: what begins together stays in order
    return {
        "displayTimeUnit": "ms",
        "otherData": {"busy_s": totals, "steps": count, "steps_per_slice": each, "window_s": [window[0], window[1]]},
        "traceEvents": events,
    }


def _replica(track: Track, window: tuple[float, float], most: int) -> tuple[list[Event], dict[str, float], int, int]:
    """Its events, busy seconds by stage, steps in the window, steps that share a slice."""
    steps, columns = track.steps, track.columns
    start = steps.end - steps.duration
    inside = np.flatnonzero((start >= window[0]) & (start < window[1]))
    each = max(1, -(-len(inside) // most))
    cuts = inside[::each]
    events = [_named("process_name", 0, track.name), _named("thread_name", STEPS_TRACK, "GPU steps")]
    totals: dict[str, float] = {}
    if len(inside):
        groups = _Groups(steps, start, inside, cuts, each)
        events += groups.slices(totals)
        events += _counters(groups, columns, track.held)
        events += _far(groups, steps, track.traffic, track.stages, totals)
        events += _pieces(track.recorder, steps, start, inside, columns["request"])
    events += _requests(columns, window)
    return events, totals, len(inside), each


class _Groups:
    """Neighbouring steps that share a slice."""

    def __init__(self, steps: Steps, start: Floats, inside: NDArray[np.int64], cuts: NDArray[np.int64], each: int):
        self.steps, self.inside, self.each = steps, inside, each
        self.at = np.arange(0, len(inside), each)  # into `inside`
        self.start = start[cuts]
        self.duration = self.sum(steps.duration)

    def sum(self, values: NDArray[Any]) -> Floats:
        sums: Floats = np.add.reduceat(values[self.inside].astype(np.float64), self.at)
        return sums

    def most(self, values: NDArray[Any]) -> Floats:
        peaks: Floats = np.maximum.reduceat(values[self.inside].astype(np.float64), self.at)
        return peaks

    def slices(self, totals: dict[str, float]) -> list[Event]:
        """Steps, with host, waits and work inside."""
        steps, ends = self.steps, np.append(self.at[1:], len(self.inside))
        count, decodes, prefill = ends - self.at, self.sum(steps.decodes), self.sum(steps.prefill)
        context, rows = self.sum(steps.context), self.sum(steps.rows)
        waits = self.sum(sum((steps.parts[part] for part in WAITS), np.zeros(len(steps.run))))
        work = self.sum(sum((steps.parts[part] for part in WORK), np.zeros(len(steps.run))))
        host = self.sum(steps.parts["host"])
        totals |= {"steps": float(self.duration.sum()), "gpu": float(work.sum())}
        events: list[Event] = []
        for index in range(len(self.start)):
            at, size = self.start[index], int(count[index])
            kind = "mixed" if prefill[index] and decodes[index] else "prefill" if prefill[index] else "decode"
            about = {
                "steps": size, "decodes": decodes[index] / size, "prompt_tokens": int(prefill[index]),
                "context_tokens": context[index] / size, "tokens_out": int(rows[index]),
            }  # fmt: skip
            events.append(_slice(kind, STEPS_TRACK, at, self.duration[index], about))
            for name, seconds in (("host", host[index]), ("wait for far KV", waits[index]), ("work", work[index])):
                if seconds > 0:
                    events.append(_slice(name, STEPS_TRACK, at, seconds))
                    at += seconds
        return events


def _counters(groups: _Groups, columns: dict[str, NDArray[Any]], held: dict[str, tuple[float, NDArray[Any]]]) -> list[Event]:
    accepted = columns["status"] != "rejected"
    admitted = np.sort(columns["admitted_s"][~np.isnan(columns["admitted_s"])])
    arrival = np.sort(columns["arrival_s"][accepted])
    queue = np.searchsorted(arrival, groups.start, "right") - np.searchsorted(admitted, groups.start, "right")
    series = {"queue": queue, "batch": groups.most(groups.steps.decodes)}
    series |= {f"{name.upper()} bytes": groups.most(used) for name, (_, used) in held.items()}
    events: list[Event] = []
    for name, values in series.items():
        changed = np.flatnonzero(np.diff(values, prepend=-1.0))
        events += [
            {"ph": "C", "name": name, "pid": 0, "ts": _us(groups.start[index]), "args": {"value": float(values[index])}}
            for index in changed
        ]
    return events


def _far(groups: _Groups, steps: Steps, traffic: Traffic, stages: list[StageWeights], totals: dict[str, float]) -> list[Event]:
    """Transfers stage by stage, instants of prefetched pages, arrows."""
    if not len(steps.far["run"]):
        return []
    where, use = steps.first[steps.far["run"]], by_step(steps.far, traffic)
    read = _settled(use["moved"]) * traffic.page_bytes
    given = np.minimum(np.cumsum(use["sent"]), traffic.written_bytes)  # what is left in L2 at the end never moved
    written = np.diff(given, prepend=0.0)

    def grouped(values: NDArray[Any]) -> Floats:
        whole = np.zeros(len(steps.run))
        np.add.at(whole, where, values)
        return groups.sum(whole)

    reads, writes = grouped(read), grouped(written)
    fates = {"in time": grouped(steps.far["in_time"]), "late": grouped(steps.far["late"]), "wasted": grouped(use["useless"])}
    events: list[Event] = []
    begins: dict[int, float] = {}
    for order, stage in enumerate(stages):
        track = FIRST_STAGE + order
        events.append(_named("thread_name", track, stage.name))
        busy = (reads * stage.read + writes * stage.write) / stage.rate
        totals[stage.name] = float(busy.sum())
        free = 0.0
        for index in np.flatnonzero(busy > 0).tolist():
            begin = max(groups.start[index], free)
            free = begin + busy[index]
            about = {"read_bytes": reads[index] * stage.read, "write_bytes": writes[index] * stage.write}
            events.append(_slice("transfer", track, begin, busy[index], about))
            if order == 0:
                begins[index] = float(begin)
    for index in range(len(groups.start)):
        at, used = groups.start[index], fates["in time"][index] + fates["late"][index]
        for name, pages in fates.items():
            if pages[index]:
                about = {"pages": int(pages[index])}
                events.append({"ph": "i", "s": "t", "name": f"prefetch {name}", "pid": 0, "tid": STEPS_TRACK, "ts": _us(at),
                               "args": about})  # fmt: skip
        if used > 0 and index in begins:
            events += _arrow(index, begins[index], at, groups.duration[index])
    return events


def _arrow(index: int, begin: float, at: float, duration: float) -> list[Event]:
    """From a transfer to the step that used its pages; none where the transfer began after the step."""
    lands = max(begin, at + 0.5 * duration)
    if lands >= at + duration:
        return []
    about = {"name": "prefetch to use", "cat": "prefetch", "id": index, "pid": 0}
    return [
        about | {"ph": "s", "tid": FIRST_STAGE, "ts": _us(begin)},
        about | {"ph": "f", "bp": "e", "tid": STEPS_TRACK, "ts": _us(lands)},
    ]


def _settled(moved: Floats) -> Floats:
    """Pages taken back are taken from the steps before that had set them in motion."""
    found = moved.copy()
    for index in range(len(found) - 1, 0, -1):
        if found[index] < 0:
            found[index - 1] += found[index]
            found[index] = 0.0
    return found


def _pieces(
    recorder: Recorder, steps: Steps, start: Floats, inside: NDArray[np.int64], numbers: NDArray[np.int64]
) -> list[Event]:  # fmt: skip
    table = np.array(recorder.pieces or [], dtype=np.int64).reshape(-1, 4)
    at = steps.first[table[:, 0]]
    table, at = table[np.isin(at, inside)], at[np.isin(at, inside)]
    every = max(1, -(-len(table) // MOST_SPANS))
    events: list[Event] = []
    for index in range(0, len(table), every):
        _, request, done, take = (int(value) for value in table[index])
        about = {"name": f"request {numbers[request]}", "cat": "prompt piece", "id": f"p{index}", "pid": 0, "tid": 2}
        begin, end = start[at[index]], steps.end[at[index]]
        events += _span(about, begin, end, {"from_token": done, "tokens": take})
    return events


def _requests(columns: dict[str, NDArray[Any]], window: tuple[float, float]) -> list[Event]:
    done = np.flatnonzero((columns["finished_s"] >= window[0]) & (columns["arrival_s"] < window[1]))
    every = max(1, -(-len(done) // MOST_SPANS))
    events: list[Event] = []
    for request in done[::every]:
        number = int(columns["request"][request])
        about = {"name": f"request {number}", "cat": "request", "id": f"r{number}", "pid": 0, "tid": 3}
        tokens = {name: int(columns[name][request]) for name in ("input_tokens", "output_tokens")}
        begin, first, end = (float(columns[name][request]) for name in ("arrival_s", "first_token_s", "finished_s"))
        events += _span(about, begin, end, tokens)
        events.append(about | {"ph": "n", "name": "first token", "ts": _us(first)})
    return events


def _span(about: Event, begin: float, end: float, details: dict[str, Any]) -> list[Event]:
    return [about | {"ph": "b", "ts": _us(begin), "args": details}, about | {"ph": "e", "ts": _us(end)}]


def _slice(name: str, track: int, begin: float, seconds: float, details: dict[str, Any] | None = None) -> Event:
    event: Event = {"ph": "X", "name": name, "pid": 0, "tid": track, "ts": _us(begin), "dur": _us(seconds)}
    return event | ({"args": details} if details else {})


def _named(kind: str, track: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": 0, "tid": track, "args": {"name": name}}


def _us(seconds: float) -> float:
    """Microseconds, to a picosecond."""
    return round(float(seconds) * 1e6, 6)
