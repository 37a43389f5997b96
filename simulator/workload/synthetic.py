"""What a scenario asks to be served: a recorded trace, or requests drawn from an arrival process and two distributions.

Arrivals and lengths have a random stream each, so that a change of one leaves the other as it was.
Sessions of several turns with shared prefixes are in `chats.py`, the clients of a service in `servegen.py`; other synthetic
prompts share nothing (`hash_ids` is None). Not modelled: correlation of lengths with time.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Protocol

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.arrivals import PROCESSES, VARYING, Varying, draw_arrivals
from simulator.workload.chats import Chats, chat_requests
from simulator.workload.fields import MOST_TOKENS
from simulator.workload.lengths import DISTRIBUTIONS, LengthsLike, draw_lengths
from simulator.workload.read import read_trace
from simulator.workload.requests import Requests, all_at_once, answered, starting
from simulator.workload.servegen import read_clients, superpose


class WorkloadLike(Protocol):
    """The fields of a resolved scenario's workload."""

    @property
    def path(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def rate_scale(self) -> float: ...
    @property
    def process(self) -> str: ...
    @property
    def rate(self) -> float: ...
    @property
    def cv(self) -> float: ...
    @property
    def varying(self) -> Varying: ...
    @property
    def chats(self) -> Chats | None: ...
    @property
    def clients(self) -> str: ...
    @property
    def block(self) -> int: ...
    @property
    def skip(self) -> bool: ...
    @property
    def requests(self) -> int: ...
    @property
    def input(self) -> LengthsLike | None: ...
    @property
    def output(self) -> LengthsLike | None: ...


def build(
    workload: WorkloadLike, rng_arrivals: np.random.Generator, rng_lengths: np.random.Generator
) -> Requests:  # fmt: skip
    """The requests of a scenario: recorded where it names a trace (the streams stay untouched but for times that are to be
    drawn), else drawn."""
    if workload.clients:
        rate = workload.rate if isfinite(workload.rate) else None
        drawn = superpose(
            read_clients(workload.clients), rng_arrivals, rng_lengths, workload.start, workload.end, rate, workload.limit,
            workload.clients,
        )  # fmt: skip
        return answered(drawn)
    if not workload.path:
        return generate(workload, rng_arrivals, rng_lengths)
    recorded = answered(
        read_trace(
            workload.path,
            workload.format,
            workload.limit,
            workload.start,
            workload.end,
            workload.rate_scale,
            workload.block,
            workload.skip,
        )
    )
    if workload.process == "at_once":
        return all_at_once(recorded)
    if workload.process != "recorded":
        return _restarted(recorded, workload, rng_arrivals)
    if "arrivals" in recorded.absent:
        message = f"{recorded.source} has no arrival times; expected arrivals: at_once, or starts"
        raise InputError(Problem("workload", "trace", message, "write for example starts: {process: poisson, rate: '1 /s'}"))
    return recorded


def _restarted(recorded: Requests, workload: WorkloadLike, rng: np.random.Generator) -> Requests:
    """The recorded requests at times of an arrival process: sessions, as a whole, where turns wait for each other."""
    problems = _arrival_problems(workload)
    if problems:
        raise InputError(problems)
    note = f"recorded arrival times replaced: {workload.process} {workload.rate:g}/s"
    kept = replace(recorded, notes=(*recorded.notes, note), absent=tuple(one for one in recorded.absent if one != "arrivals"))
    if recorded.loop is None:
        times = draw_arrivals(rng, workload.process, len(recorded), workload.rate, workload.cv, workload.varying)
        return replace(kept, arrival=times)
    session = recorded.session if recorded.session is not None else np.arange(len(recorded))
    alone = np.where(session < 0, len(recorded) + np.arange(len(recorded)), session)
    first, number = np.unique(alone, return_index=True, return_inverse=True)[1:]
    order = np.argsort(np.argsort(first))  # sessions in the order in which they began
    times = draw_arrivals(rng, workload.process, len(first), workload.rate, workload.cv, workload.varying)
    return starting(kept, times[order[number]] + recorded.arrival - recorded.arrival[first[number]])


def generate(workload: WorkloadLike, rng_arrivals: np.random.Generator, rng_lengths: np.random.Generator) -> Requests:
    """Synthetic requests."""
    problems = [*_arrival_problems(workload)]
    for side, lengths in (("input", workload.input), ("output", workload.output)):
        problems += _length_problems(side, lengths)
    if problems or workload.input is None or workload.output is None:
        raise InputError(problems)
    arrival = draw_arrivals(
        rng_arrivals, workload.process, workload.requests, workload.rate, workload.cv, workload.varying
    )  # fmt: skip
    source = workload.process if workload.process == "at_once" else f"{workload.process} {workload.rate:g}/s"
    traces = dict.fromkeys(one.trace for one in (workload.input, workload.output) if one.dist == "empirical")
    notes = tuple(f"lengths drawn from {trace}" for trace in traces)
    source = f"synthetic: {source}"
    if workload.chats is not None:
        of_sessions = rng_lengths.spawn(1)[0]  # so that the lengths do not depend on how many turns sessions have
        return chat_requests(
            workload.chats, workload.requests, arrival, rng_lengths, of_sessions, workload.input, workload.output, source, notes
        )  # fmt: skip
    prompts, generated = draw_lengths(rng_lengths, workload.requests, workload.input, workload.output)
    absent = ("prefix reuse", "sessions")
    return Requests(arrival, prompts, generated, None, 0, source, notes, absent=absent)


def _arrival_problems(workload: WorkloadLike) -> list[Problem]:
    problems = []
    known = [*PROCESSES, *VARYING]
    if workload.process not in known:
        message = f"'{workload.process}' is not an arrival process; expected one of {', '.join(known)}"
        problems.append(_problem("process", message, did_you_mean(workload.process, known)))
    if workload.requests < 1 and not workload.path:
        problems.append(_problem("requests", f"{workload.requests} found; expected at least 1"))
    if workload.process != "at_once" and not workload.rate > 0:
        problems.append(_problem("rate", f"{workload.rate} requests/s found; expected more than 0"))
    if workload.process == "gamma" and not (workload.cv > 0 and isfinite(workload.cv)):
        problems.append(_problem("cv", f"{workload.cv} found; expected a finite number above 0"))
    return problems


def _length_problems(side: str, lengths: LengthsLike | None) -> list[Problem]:
    if lengths is None:
        return [_problem(side, "missing; synthetic requests need a length distribution")]
    if lengths.dist == "fixed" and not 1 <= lengths.tokens <= MOST_TOKENS:
        return [_problem(f"{side}.tokens", f"{lengths.tokens} found; expected 1 to {MOST_TOKENS}")]
    if lengths.dist == "uniform" and not 1 <= lengths.low <= lengths.high <= MOST_TOKENS:
        message = f"low {lengths.low} and high {lengths.high} found; expected 1 <= low <= high <= {MOST_TOKENS}"
        return [_problem(side, message)]
    if lengths.dist == "lognormal":
        return _lognormal_problems(side, lengths)
    if lengths.dist == "geometric" and not (lengths.mean >= 1 and isfinite(lengths.mean)):
        return [_problem(f"{side}.mean", f"{lengths.mean} tokens found; expected a finite number of at least 1")]
    known = ["empirical", *DISTRIBUTIONS]
    if lengths.dist not in known:
        message = f"'{lengths.dist}' is not a length distribution; expected one of {', '.join(known)}"
        return [_problem(f"{side}.dist", message, did_you_mean(lengths.dist, known))]
    return []


def _lognormal_problems(side: str, lengths: LengthsLike) -> list[Problem]:
    problems = []
    if not (lengths.mean > 0 and isfinite(lengths.mean)):
        problems.append(_problem(f"{side}.mean", f"{lengths.mean} tokens found; expected a finite number above 0"))
    if not (lengths.cv >= 0 and isfinite(lengths.cv)):
        problems.append(_problem(f"{side}.cv", f"{lengths.cv} found; expected a finite number of at least 0"))
    if not 0 <= lengths.low <= (lengths.high or MOST_TOKENS) <= MOST_TOKENS:
        message = f"clipped to low {lengths.low} and high {lengths.high}; expected 0 <= low <= high <= {MOST_TOKENS}"
        problems.append(_problem(side, message))
    return problems


def _problem(field: str, message: str, hint: str = "") -> Problem:
    return Problem("workload", field, message, hint)
