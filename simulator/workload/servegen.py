"""ServeGen client data: a service as the superposition of its clients, each with its own rates, burstiness and lengths.

A tar (or folder) of, for client i, `chunk-i-trace.csv` without a header - window start (s), rate (req/s), CV of the gaps,
family ("Gamma", "Weibull" or empty), shape, scale (s) - and `chunk-i-dataset.json`: {window start: {field: "{tokens:
probability, ...}"}}. A window whose lengths are "{}" takes those of the nearest window that has some. A client without any
lengths is left out of what is generated, with a note.

Arrivals: a renewal process per client, in the time in which its rate is 1 (rates of windows may differ): gaps have the family
of the window with its shape (Gamma: 1 / CV^2 where no shape is given; no family: the same) and mean 1. Input and output
lengths are drawn independently, as in ServeGen. Source: github.com/alibaba/ServeGen; Y. Xiang et al., arXiv 2505.09999.
"""

from __future__ import annotations

import ast
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gamma as gamma_function
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from simulator.errors import InputError, Problem
from simulator.workload.lines import excerpt
from simulator.workload.requests import Floats, Ints, Requests

FILE = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)")
FAMILIES = ("Gamma", "Weibull", "")
MORE = 1.25  # times the requests that are asked for are drawn, if so many are expected
MOST_SHAPE = 1e6  # a Gamma of that shape is constant


@dataclass
class Pmf:
    tokens: Ints
    chance: Floats  # sums to 1


@dataclass
class Client:
    number: int
    start: Floats  # s, of each window
    rate: Floats
    cv: Floats
    family: list[str]
    shape: Floats
    lengths: dict[float, tuple[Pmf, Pmf]] = field(default_factory=dict)  # window -> input, output

    def lengths_at(self, time: float) -> tuple[Pmf, Pmf]:
        """Of the window in which `time` is, or the nearest one that has lengths."""
        starts = np.array(sorted(self.lengths))
        inside = starts[starts <= time]
        nearest = starts[np.argmin(np.abs(starts - time))]
        return self.lengths[float(inside[-1] if len(inside) else nearest)]


def is_clients(path: str | PathLike[str]) -> bool:
    """A tar or folder with files of clients."""
    try:
        where = Path(fspath(path))
        if where.is_dir():
            return any(FILE.fullmatch(file.name) for file in where.iterdir())
        if not (where.is_file() and tarfile.is_tarfile(where)):
            return False
        with tarfile.open(where) as tar:
            first = next((member for member in tar if member.isfile()), None)
            return first is not None and FILE.fullmatch(Path(first.name).name) is not None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError):
        return False


def read_clients(path: str | PathLike[str]) -> list[Client]:
    """The clients, by number; InputError with what is wrong."""
    files = _files(Path(fspath(path)))
    problems: list[Problem] = []
    clients = []
    for number in sorted({number for number, kind in files if kind == "trace.csv"}):
        client = _rates(fspath(path), number, files[number, "trace.csv"], problems)
        if (data := files.get((number, "dataset.json"))) is not None:
            _lengths(fspath(path), client, data, problems)
        clients.append(client)
    if not clients and not problems:
        problems.append(Problem(fspath(path), "", "no client; expected files chunk-0-trace.csv, chunk-0-dataset.json, ..."))
    if problems:
        raise InputError(problems[:20])
    return clients


def _files(path: Path) -> dict[tuple[int, str], bytes]:
    found = {}
    try:
        if path.is_dir():
            named = [(file.name, file.read_bytes()) for file in sorted(path.rglob("*")) if file.is_file()]
        else:
            with tarfile.open(path) as tar:
                members = [(one.name, tar.extractfile(one)) for one in tar.getmembers() if one.isfile()]
                named = [(name, stream.read()) for name, stream in members if stream is not None]
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(Problem(str(path), "", f"is neither a folder nor a tar of client data ({error})")) from None
    for name, data in named:
        if match := FILE.fullmatch(Path(name).name):
            found[int(match[1]), match[2]] = data
    return found


def _rates(path: str, number: int, data: bytes, problems: list[Problem]) -> Client:
    where = f"{path}/chunk-{number}-trace.csv"
    rows, families = [], []
    for line_number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split(",")
        try:
            values = [float(cell) for index, cell in enumerate(cells) if index != 3]
        except ValueError:
            values = []
        if len(cells) != 6 or len(values) != 5 or cells[3] not in FAMILIES or not min(values) >= 0 or not max(values) < np.inf:
            message = f"{excerpt(line)} found; expected start, rate, CV, Gamma|Weibull|(empty), shape, scale"
            problems.append(Problem(f"{where}:{line_number}", "", message))
            continue
        rows.append(values)
        families.append(cells[3])
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Client(number, table[:, 0], table[:, 1], table[:, 2], families, table[:, 3])


def _lengths(path: str, client: Client, data: bytes, problems: list[Problem]) -> None:
    where = f"{path}/chunk-{client.number}-dataset.json"
    try:
        document = json.loads(data)
        windows = [(float(start), fields["input_tokens"], fields["output_tokens"]) for start, fields in document.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(Problem(where, "", f"expected {{window: {{input_tokens, output_tokens}}}} ({error!r})"))
        return
    for start, prompts, outputs in windows:
        try:
            pair = _pmf(prompts), _pmf(outputs)
        except (ValueError, SyntaxError, TypeError, AttributeError) as error:
            problems.append(Problem(where, f"{start:g}", f"{excerpt(prompts)}: not tokens and probabilities ({error})"))
            continue
        if pair[0] is not None and pair[1] is not None:
            client.lengths[start] = pair[0], pair[1]


def _pmf(text: str) -> Pmf | None:
    """A Python dict as text, in order of tokens; None if it is empty."""
    inside = text.strip().strip("{}")
    if not inside.strip():
        return None
    flat = np.array(inside.replace(":", ",").split(","), np.float64)
    if len(flat) % 2 or inside.count(":") * 2 != len(flat):
        flat = np.array([value for pair in ast.literal_eval(text).items() for value in pair], np.float64)
    order = np.argsort(flat[::2])
    tokens, chance = flat[::2][order], flat[1::2][order]
    if tokens[0] < 0 or chance.min() < 0 or not chance.sum() > 0:
        raise ValueError("a negative count or probability")
    return Pmf(tokens.astype(np.int64), chance / chance.sum())


# --- statistics


def clients_stats(clients: Sequence[Client]) -> dict[str, Any]:
    """Of the service: rates over the windows, CV of the clients' gaps, who sends how much, lengths weighted by the rates."""
    starts = np.unique(np.concatenate([client.start for client in clients]))
    total, requests = np.zeros(len(starts)), []
    for client in clients:
        total[np.searchsorted(starts, client.start)] += client.rate
        requests.append(float(client.rate.sum()))
    rates = np.concatenate([client.rate for client in clients])
    cvs = np.concatenate([client.cv for client in clients])
    shares = np.sort(requests)[::-1] / max(sum(requests), 1e-300)
    stats: dict[str, Any] = {
        "clients": len(clients),
        "clients_with_lengths": sum(bool(client.lengths) for client in clients),
        "cv": {
            "mean": round(float(cvs.mean()), 2),
            "rate_weighted": round(float(np.dot(cvs, rates) / max(rates.sum(), 1e-300)), 2),
        },
        "largest_client_share": round(float(shares[0]), 3),
        "rate": {
            name: round(float(value), 1) for name, value in (("max", total.max()), ("mean", total.mean()), ("min", total.min()))
        },
        "top_ten_share": round(float(shares[:10].sum()), 3),
        "windows": len(starts),
    }
    for side, name in enumerate(("prompt_tokens", "output_tokens")):
        mixed = _mixed(clients, side)
        if mixed is not None:
            stats[name] = _weighted(mixed)
    return dict(sorted(stats.items()))


def _mixed(clients: Sequence[Client], side: int) -> Pmf | None:
    """Lengths of all clients' requests together."""
    tokens, chance = [], []
    for client in clients:
        if not client.lengths:
            continue
        of_window: dict[int, float] = {}
        pmfs: dict[int, Pmf] = {}
        for start, rate in zip(client.start.tolist(), client.rate.tolist(), strict=True):
            if rate > 0:
                pmf = client.lengths_at(start)[side]
                pmfs[id(pmf)] = pmf
                of_window[id(pmf)] = of_window.get(id(pmf), 0.0) + rate
        tokens += [pmf.tokens for pmf in pmfs.values()]
        chance += [pmf.chance * of_window[key] for key, pmf in pmfs.items()]
    if not tokens:
        return None
    values, where = np.unique(np.concatenate(tokens), return_inverse=True)
    summed = np.bincount(where, np.concatenate(chance))
    return Pmf(values, summed / summed.sum())


def _weighted(pmf: Pmf) -> dict[str, float]:
    upto = np.cumsum(pmf.chance)
    at = {f"p{percent}": min(int(np.searchsorted(upto, percent / 100)), len(upto) - 1) for percent in (50, 90, 99)}
    found = {name: int(pmf.tokens[index]) for name, index in at.items()}
    mean = {"mean": round(float(np.dot(pmf.tokens, pmf.chance)), 1)}
    extremes: dict[str, float] = {"max": int(pmf.tokens[-1]), "min": int(pmf.tokens[0])}
    return dict(sorted((found | extremes | mean).items()))


# --- requests


def _gamma(rng: np.random.Generator, shape: float, count: int) -> Floats:
    return rng.standard_gamma(shape, count) / shape


def _weibull(rng: np.random.Generator, shape: float, count: int) -> Floats:
    return rng.weibull(shape, count) / gamma_function(1 + 1 / shape)


GAPS: dict[str, Callable[[np.random.Generator, float, int], Floats]] = {"Gamma": _gamma, "Weibull": _weibull}


def superpose(
    clients: Sequence[Client], rng_arrivals: np.random.Generator, rng_lengths: np.random.Generator, start: float, end: float,
    rate: float | None, limit: int | None, source: str,
) -> Requests:  # fmt: skip
    """Requests of all clients in [start, end) s of the recorded days, with times from `start`; the first `limit` of them.
    `rate`: all rates are scaled by one factor to this mean (requests/s) between the two."""
    able = [client for client in clients if client.lengths]
    spans = [_windows(client, start, end) for client in able]
    expected = sum(float(np.dot(stop - begin, rates)) for begin, stop, rates, _ in spans)
    last = max((float(stop[-1]) for _, stop, _, _ in spans if len(stop)), default=start)
    if expected <= 0:
        raise InputError(Problem(source, "", f"no client sends anything from {start:g} s to {end:g} s"))
    factor = 1.0 if rate is None else rate * (last - start) / expected
    if limit is not None and expected * factor > limit:
        end = _enough(spans, MORE * limit / factor + MORE, end)
        spans = [_windows(client, start, end) for client in able]
    columns: list[tuple[Floats, Ints, Ints, Ints]] = []
    for client, (begin, stop, rates, windows) in zip(able, spans, strict=True):
        times, window = _times(client, rng_arrivals, begin, stop, rates * factor, windows)
        prompts, outputs = np.empty(len(times), np.int64), np.empty(len(times), np.int64)
        for one in np.unique(window).tolist():
            here = np.flatnonzero(window == one)
            for pmf, column in zip(client.lengths_at(float(client.start[one])), (prompts, outputs), strict=True):
                column[here] = rng_lengths.choice(pmf.tokens, len(here), p=pmf.chance)
        columns.append((times - start, prompts, outputs, np.full(len(times), client.number)))
    arrival, prompts, outputs, _ = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.argsort(arrival, kind="stable")[:limit]
    notes = () if len(able) == len(clients) else (f"{len(clients) - len(able)} clients without lengths left out",)
    return Requests(
        arrival[order], np.maximum(prompts[order], 1), outputs[order], None, 0, source, notes,
        absent=("prefix reuse", "sessions"),
    )  # fmt: skip


def _enough(spans: Sequence[tuple[Floats, Floats, Floats, Ints]], requests: float, end: float) -> float:
    """The end of the first window by which so many requests are expected, so that what comes later need not be drawn."""
    stops = np.concatenate([stop for _, stop, _, _ in spans])
    counts = np.concatenate([(stop - begin) * rates for begin, stop, rates, _ in spans])
    order = np.argsort(stops, kind="stable")
    reached = int(np.searchsorted(np.cumsum(counts[order]), requests))
    return float(stops[order[reached]]) if reached < len(stops) else end


def _windows(client: Client, start: float, end: float) -> tuple[Floats, Floats, Floats, Ints]:
    """Begin, end, rate and number of the windows from `start` to `end`."""
    width = float(np.diff(client.start).min()) if len(client.start) > 1 else 600.0
    stop = np.append(client.start[1:], client.start[-1] + width) if len(client.start) else client.start
    begin, stop = np.maximum(client.start, start), np.minimum(stop, end)
    kept = np.flatnonzero(stop > begin)
    return begin[kept], stop[kept], client.rate[kept], kept


def _times(
    client: Client, rng: np.random.Generator, begin: Floats, stop: Floats, rates: Floats, windows: Ints
) -> tuple[Floats, Ints]:  # fmt: skip
    """Arrival times of one client, and the window of each."""
    found, inside = [], []
    left = float(rng.uniform())  # of the gap under way, in units of the mean gap
    for first, last, rate, window in zip(begin.tolist(), stop.tolist(), rates.tolist(), windows.tolist(), strict=True):
        length = rate * (last - first)  # in mean gaps
        if length <= left:
            left -= length
            continue
        family = client.family[window] or "Gamma"
        shape, cv = float(client.shape[window]), float(client.cv[window])
        if not shape > 0:
            shape = min(MOST_SHAPE, 1 / cv**2) if cv > 0 else MOST_SHAPE
        at = [np.array([left])]
        while at[-1][-1] < length:
            more = int((length - at[-1][-1]) * 1.2) + 16
            at.append(at[-1][-1] + np.cumsum(GAPS[family](rng, shape, more)))
        times = np.concatenate(at)
        count = int(np.searchsorted(times, length))
        left = float(times[count]) - length
        found.append(first + times[:count] / rate)
        inside.append(np.full(count, window))
    if not found:
        return np.zeros(0), np.zeros(0, np.int64)
    return np.concatenate(found), np.concatenate(inside)
