"""`faults:` of a scenario: a list of what breaks, when, for how long, and what becomes of the pages that are lost.

    faults:
      - {what: link_down, link: switch, count: 1, at: 12 s, for: 5 s}
      - {what: link_degraded, factor: 0.5, at: 1 min}                       # for good
      - {what: board_lost, mean_time_between: 1 h, for: 5 min, on_loss: abort}
      - {what: latency_spike, latency: 50 us, at: 3 s, for: 100 ms}
      - {what: link_down, link: gpu, replica: 1, at: 3 s, for: 100 ms}     # of one of several replicas

What each does is said in `hardware/faults.py`. Fields that a fault does not use are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from simulator.errors import Problem
from simulator.scenario import resolved as r
from simulator.scenario.parts import Section, Time, Whole, default
from simulator.scenario.quantities import Number, Quantity, refuse_all
from simulator.scenario.source import Source
from simulator.units import format_quantity

# what each kind uses beside `at`, `for` and `mean_time_between`
USES: dict[str, tuple[str, ...]] = {
    "link_down": ("link", "count", "on_loss"),
    "link_degraded": ("link", "count", "factor"),
    "board_lost": ("count", "on_loss"),
    "latency_spike": ("latency",),
}
_NEEDS = {"link_degraded": ("factor", "factor: 0.5"), "latency_spike": ("latency", "latency: 50 us")}
_OPTIONAL = ("link", "count", "factor", "latency", "on_loss")
_WHOLE = Annotated[int, Field(ge=0)]
_LONGER = Quantity("time", above_zero=True)

# a field called `for` cannot be written as one
_Lasting: Any = create_model(
    "_Lasting", __base__=Section, **{"for": (Annotated[float, _LONGER], default("inf", "how long; default: for good"))}
)  # type: ignore[call-overload]


class FaultPart(_Lasting):  # type: ignore[misc]
    what: Literal["link_down", "link_degraded", "board_lost", "latency_spike"]
    at: Time | None = default(None, "when, from the start of the workload")
    mean_time_between: Annotated[float, Quantity("time", above_zero=True, finite=True)] | None = default(
        None, "instead of `at`: mean time from the end of one to the start of the next"
    )
    link: Literal["board", "switch", "gpu"] | None = default(None, "whose links; default: those of one board")
    count: Whole | None = default(None, "links or boards; default 1")
    factor: Annotated[float, Number(above=0, most=1)] | None = default(None, "of the rate that a degraded link keeps")
    latency: Time | None = default(None, "that a round trip takes longer")
    on_loss: Literal["recompute", "abort"] | None = default(None, "what becomes of requests whose pages are lost")
    replica: _WHOLE | None = default(None, "of several: the one whose pool or GPU ports fail, from 0; default: those of each")

    @model_validator(mode="after")
    def _used(self) -> FaultPart:
        given = [name for name in _OPTIONAL if getattr(self, name) is not None]
        problems: list[tuple[tuple[str, ...], str]] = [
            ((name,), f"a {self.what} does not use {name}; remove it") for name in given if name not in USES[self.what]
        ]
        needed, example = _NEEDS.get(self.what, ("", ""))
        if needed and needed not in given:
            problems.append((("what",), f"a {self.what} needs a {needed}; write for example '{example}'"))
        if (self.at is None) == (self.mean_time_between is None):
            problems.append((("what",), "give either at (a time) or mean_time_between (a rate)"))
        if self.what == "link_down" and self.on_loss and getattr(self, "for") < inf:
            problems.append((("on_loss",), "pages behind a link that comes back are not lost; remove on_loss"))
        if self.link == "gpu" and (self.count or 1) > 1:
            problems.append((("count",), "a layer waits for the slowest GPU, so one port is as bad as all; remove count"))
        if problems:
            raise refuse_all(problems)
        return self


def faults_of(parts: tuple[FaultPart, ...]) -> tuple[r.Fault, ...]:
    """In SI units, with the defaults of what was not said."""
    return tuple(
        r.Fault(
            what=part.what,
            link=(part.link or "board") if "link" in USES[part.what] else "",
            count=part.count or 1,
            factor=1.0 if part.factor is None else part.factor,
            latency=part.latency or 0.0,
            at=part.at or 0.0,
            duration=getattr(part, "for"),
            mean_time_between=part.mean_time_between,
            on_loss=part.on_loss or "recompute",
            replica=part.replica,
        )
        for part in parts
    )


def faults_document(faults: tuple[r.Fault, ...]) -> list[dict[str, Any]]:
    """As they load again."""
    return [_document(fault) for fault in faults]


def _document(fault: r.Fault) -> dict[str, Any]:
    found: dict[str, Any] = {"what": fault.what}
    for name in USES[fault.what]:
        found[name] = format_quantity(fault.latency, "time") if name == "latency" else getattr(fault, name)
    if fault.link == "gpu":
        del found["count"]
    if fault.what == "link_down" and fault.duration < inf:
        del found["on_loss"]
    if fault.replica is not None:
        found["replica"] = fault.replica
    if fault.mean_time_between is None:
        found["at"] = format_quantity(fault.at, "time")
    else:
        found["mean_time_between"] = format_quantity(fault.mean_time_between, "time")
    return found | {"for": format_quantity(fault.duration, "time")}


def whose_checks(scenario: r.ScenarioResolved, source: Source, replicas: int) -> Iterator[Problem]:
    """Faults of one of several replicas."""
    for index, fault in enumerate(scenario.faults):
        at = ("faults", str(index), "replica")
        if fault.replica is None:
            continue
        if replicas == 1:
            yield source.problem(at, "there is one replica; remove it")
        elif fault.replica >= replicas:
            yield source.problem(at, f"there is no replica {fault.replica}, but {replicas} replicas, counted from 0")
        elif scenario.cluster.pool_shared and not fault.own:
            message = f"the pool is shared, and a {fault.what} breaks it for all {replicas} replicas"
            yield source.problem(at, message, "remove it, or write cluster.kv_pool.shared: false")


def fault_checks(scenario: r.ScenarioResolved, source: Source) -> Iterator[Problem]:
    """Faults of what the cluster does not have."""
    pool = scenario.pool
    if scenario.faults and pool is None:
        message = "only links and boards of a kv_pool can fail, and there is no cluster.kv_pool"
        yield source.problem(("faults",), message, "remove faults, or add a kv_pool", key=True)
        return
    for index, fault in enumerate(scenario.faults):
        assert pool is not None
        at = ("faults", str(index))
        if fault.link == "switch" and pool.switch is None:
            yield source.problem((*at, "link"), "the pool has no switch", "add cluster.kv_pool.switch, or write link: board")
            continue
        most = {"board": (pool.links_per_board, "links of a board"), "": (pool.boards, "boards")}
        if pool.switch is not None:
            most["switch"] = (pool.switch.uplinks, "uplinks of the switch")
        there, what = most.get(fault.link, (fault.count, ""))
        if fault.count > there:
            yield source.problem((*at, "count"), f"{fault.count} of {there} {what} cannot fail")
