"""The fluid fabric by hand: times that can be computed on paper, and the traps of fluid simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

import pytest
import simpy

from simulator.hardware.fabric import (
    DEMAND,
    PREFETCH,
    WRITE_BACK,
    Fabric,
    Flow,
    Stage,
    littles_law_cap,
)


class Bench:
    """A checked fabric that notes when each flow ends."""

    def __init__(self, start: float = 0.0):
        self.env = simpy.Environment(start)
        self.fabric = Fabric(self.env, checked=True)
        self.ends: dict[str, float] = {}
        self.flows: dict[str, Flow] = {}

    def at(self, time: float, act: Callable[[], object]) -> None:
        def later() -> Iterator[simpy.Event]:
            yield self.env.timeout(time - self.env.now)
            act()

        self.env.process(later())

    def move(self, tag: str, size: float, path: dict[Stage, float], at: float | None = None, **options: float) -> None:
        def start() -> None:
            self.flows[tag] = flow = self.fabric.move(size, path, tag=tag, **options)  # type: ignore[arg-type]
            flow.done.callbacks.append(lambda event: self.ends.update({event.value.tag: self.env.now}))

        start() if at is None else self.at(at, start)

    def run(self) -> dict[str, float]:
        self.env.run()
        self.fabric.check()
        return self.ends


def test_one_flow_takes_latency_plus_bytes_over_rate() -> None:
    """3 + 100 / 10 = 13 s; before the latency is over the stage carries nothing.

    Would catch: latency per share or per stage, a first byte that moves too early.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0}, latency=3.0)
    bench.at(3.0, lambda: seen.append(link.carried))
    bench.at(8.0, lambda: seen.append(link.carried))
    seen: list[float] = []
    assert bench.run() == {"a": 13.0}
    assert seen == [0.0, 50.0]
    assert (link.carried, link.busy) == (100.0, 10.0)


def test_two_equal_flows_take_twice_as_long_and_end_together() -> None:
    """2 x 100 B over 10 B/s: both at 20 s.

    Would catch: shares that are not halved, one of two simultaneous ends forgotten.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.move("b", 100.0, {link: 1.0})
    assert bench.run() == {"a": 20.0, "b": 20.0}


def test_staggered_flows() -> None:
    """The second of two 100 B flows over 10 B/s starts 5 s later: 50 B alone, then 5 B/s each: 15 s and 20 s.

    Would catch: shares not computed anew at a start (a: 10 s) or at an end (b: 25 s).
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.move("b", 100.0, {link: 1.0}, at=5.0)
    assert bench.run() == {"a": 15.0, "b": 20.0}


def test_a_second_narrower_stage() -> None:
    """a: link (10). b: link and a 4 B/s stage. b gets 4, a the other 6: a 100 / 6 = 16.67 s, b 25 s.

    Would catch: an even split (a: 20 s) that does not give back what b cannot use.
    """
    bench, link, slow = Bench(), Stage("link", 10.0), Stage("slow", 4.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.move("b", 100.0, {link: 1.0, slow: 1.0})
    assert bench.run() == pytest.approx({"a": 100 / 6, "b": 25.0}, rel=1e-12)
    assert link.busy == pytest.approx(100 / 6 + (25 - 100 / 6) * 0.4)


def test_demand_overtakes_prefetch_and_write_back() -> None:
    """100 B prefetch, at 2 s 50 B demand, both over 10 B/s: 7 s and 15 s; 10 B of write-back wait until 16 s.

    Would catch: classes that share, a lower class that is not resumed.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("write", 10.0, {link: 1.0}, priority=WRITE_BACK)
    bench.move("prefetch", 100.0, {link: 1.0}, priority=PREFETCH)
    bench.move("demand", 50.0, {link: 1.0}, at=2.0, priority=DEMAND)
    assert bench.run() == {"demand": 7.0, "prefetch": 15.0, "write": 16.0}


def test_priority_inheritance() -> None:
    """Prefetches a and b of 50 B each over 10 B/s, a demand of 100 B at 2 s; at 4 s somebody waits for a, which then
    shares with the demand: a has 40 B left, 5 B/s, ends at 12 s; the demand has 80 B left, 40 B at 12 s, ends at 16 s;
    b has 40 B left and ends at 20 s. Raising to a less urgent class does nothing.

    Would catch: a raised class that takes effect only at the next start or end (at 12 s), or that can be lowered.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 50.0, {link: 1.0}, priority=PREFETCH)
    bench.move("b", 50.0, {link: 1.0}, priority=PREFETCH)
    bench.move("demand", 100.0, {link: 1.0}, at=2.0)
    bench.at(4.0, lambda: bench.fabric.raise_priority(bench.flows["a"], DEMAND))
    bench.at(5.0, lambda: bench.fabric.raise_priority(bench.flows["a"], WRITE_BACK))
    assert bench.run() == {"a": 12.0, "demand": 16.0, "b": 20.0}


def test_priority_raised_during_the_latency() -> None:
    """A prefetch that inherits before its first byte moves starts in the higher class: 5 B/s each from 1 s on.

    Would catch: a class that is read when the transfer is asked for, not when it starts.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("demand", 60.0, {link: 1.0})
    bench.move("prefetch", 50.0, {link: 1.0}, priority=PREFETCH, latency=1.0)
    bench.fabric.raise_priority(bench.flows["prefetch"], DEMAND)
    assert bench.run() == {"demand": 11.0, "prefetch": 11.0}


def test_cap_by_outstanding_requests() -> None:
    """10 B in flight per 10 s round trip: 1 B/s; 90 B beside it take the other 9 B/s: both end at 10 s.

    Would catch: a cap that is ignored, or whose unused share is lost.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("capped", 10.0, {link: 1.0}, cap=littles_law_cap(10.0, 10.0))
    bench.move("free", 90.0, {link: 1.0})
    assert bench.run() == {"capped": 10.0, "free": 10.0}


def test_littles_law_cap_counts_wire_bytes() -> None:
    """32 requests of 256 wire bytes per microsecond: 8.192 GB/s of wire, twice as much raw at ratio 2.

    Would catch: a cap in wire bytes applied to raw bytes; division by a round trip of 0.
    """
    assert littles_law_cap(32 * 256, 1e-6) == pytest.approx(8.192e9)
    assert littles_law_cap(32 * 256, 1e-6, 0.5) == pytest.approx(16.384e9)
    assert littles_law_cap(32 * 256, 0.0) == inf


def test_many_hops_with_a_shared_middle() -> None:
    """Flows with own ends (6 and 20 B/s), a middle of 10 B/s: 5 each, 60 B and 40 B: 8 s; then 6 B/s: 11.33 s.

    Would catch: a stage of the path that is left out, an end stage that is not the limit once the middle is free.
    """
    bench, middle = Bench(), Stage("middle", 10.0)
    bench.move("a", 60.0, {Stage("a-in", 6.0): 1.0, middle: 1.0, Stage("a-out", 20.0): 1.0})
    bench.move("b", 40.0, {Stage("b-in", 20.0): 1.0, middle: 1.0, Stage("b-out", 20.0): 1.0})
    assert bench.run() == pytest.approx({"b": 8.0, "a": 8.0 + 20 / 6}, rel=1e-12)


def test_compression_weights() -> None:
    """Ratio 2 on a 10 B/s link, decompressor of 16 raw B/s: 100 raw B in 6.25 s, 50 B on the link, which is half busy.

    Would catch: raw bytes counted on the link, or the ratio applied to the engine as well.
    """
    bench, link, engine = Bench(), Stage("link", 10.0), Stage("decompressor", 16.0)
    bench.move("a", 100.0, {link: 0.5, engine: 1.0})
    assert bench.run() == {"a": 6.25}
    assert (link.carried, engine.carried) == (50.0, 100.0)
    assert (link.busy, engine.busy) == (5.0, 6.25)


def test_compressed_and_raw_share_the_link_evenly_in_wire_bytes() -> None:
    """On 10 B/s each gets 5 wire B/s: raw 50 B and compressed (ratio 2) 100 B both end at 10 s.

    Would catch: fairness in raw bytes (3.33 B/s each).
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("raw", 50.0, {link: 1.0})
    bench.move("compressed", 100.0, {link: 0.5})
    assert bench.run() == {"raw": 10.0, "compressed": 10.0}


def test_cancel_frees_the_share_and_keeps_what_was_moved() -> None:
    """Two flows of 100 B over 10 B/s; one is cancelled at 4 s with 20 B moved: the other ends at 4 + 80 / 10 = 12 s.

    Would catch: a share that is not given back, bytes lost or counted twice, a cancelled flow that ends all the same.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.move("b", 100.0, {link: 1.0})
    bench.move("late", 100.0, {link: 1.0}, latency=6.0)
    moved: list[float] = []
    for tag in ("b", "late", "b"):
        bench.at(4.0, lambda tag=tag: moved.append(bench.fabric.cancel(bench.flows[tag])))  # type: ignore[misc]
    assert bench.run() == {"a": 12.0}
    assert moved == [20.0, 0.0, 20.0]
    assert link.carried == 120.0
    assert bench.fabric.cancel(bench.flows["a"]) == 100.0
    assert not bench.flows["a"].cancelled


def test_zero_bytes_take_the_latency_only() -> None:
    """0 B: at once, or after the latency, and nobody else is slowed.

    Would catch: 0 / 0, a flow that never ends, a share taken by nothing.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("now", 0.0, {link: 1.0})
    bench.move("later", 0.0, {link: 1.0}, latency=2.0)
    bench.move("other", 100.0, {link: 1.0})
    assert bench.run() == {"now": 0.0, "later": 2.0, "other": 10.0}


def test_infinite_rates_finish_at_once() -> None:
    """Without a finite stage or cap: at the instant of the start; beside a finite flow on the same infinite stage too.

    Would catch: inf x 0 = nan, and a free flow that is held up by the queue of a finite one.
    """
    bench, free, link = Bench(), Stage("free", inf), Stage("link", 10.0)
    bench.move("a", 1e9, {free: 1.0}, at=1.0)
    bench.move("b", 100.0, {free: 1.0, link: 1.0})
    bench.move("c", 1e9, {})
    bench.move("d", 1e9, {link: 0.0})
    assert bench.run() == {"c": 0.0, "d": 0.0, "a": 1.0, "b": 10.0}
    assert (free.carried, free.busy, link.carried) == (1e9 + 100, 0.0, 100.0)


def test_the_end_of_a_flow_without_stages_keeps_the_alarm_of_the_others() -> None:
    """A capped flow over no stage ends at 1 s; the one on the link is still told of its end at 10 s.

    Would catch: an alarm set anew only where stages have changed, after which nothing ever ends.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("b", 100.0, {link: 1.0})
    bench.move("a", 1.0, {}, cap=1.0)
    assert bench.run() == {"a": 1.0, "b": 10.0}


def test_a_link_that_fails_and_comes_back() -> None:
    """100 B over 10 B/s; down from 2 s to 5 s, then 20 B/s: 5 + 80 / 20 = 9 s; busy 2 + 4 s.

    Would catch: an alarm that survives the fault, utilisation computed with the last rate only.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.at(2.0, lambda: bench.fabric.set_rate(link, 0.0))
    bench.at(5.0, lambda: bench.fabric.set_rate(link, 20.0))
    assert bench.run() == {"a": 9.0}
    assert link.busy == 6.0


def test_rates_and_load_are_right_within_an_instant() -> None:
    """Right after `move`, before any event: 4 B/s for a flow capped there (2 on the wire), 8 for a lower class.

    Would catch: a reader between a change and its sharing who sees the old rates.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 0.5}, cap=4.0)
    bench.move("b", 100.0, {link: 1.0}, priority=PREFETCH)
    assert list(bench.fabric.rates().values()) == [4.0, 8.0]
    assert bench.fabric.load(link, DEMAND) == 2.0
    assert bench.fabric.load(link) == 10.0


def test_tiny_remainders_at_a_large_clock() -> None:
    """At 1e7 s a tick is 1.9e-9 s; 1000 flows of 1 to 8 B at 1e12 B/s last less than a tick each, and all end.

    Would catch: a loop that waits for a remainder which the clock cannot resolve (this test would not return).
    """
    bench, link = Bench(start=1e7), Stage("link", 1e12)
    for i in range(1000):
        bench.move(f"{i}", 1.0 + i % 8, {link: 1.0}, at=1e7 + (i // 10) * 1e-8, priority=i % 3)
    assert len(bench.run()) == 1000
    assert bench.env.now - 1e7 < 1e-5
    assert link.carried == pytest.approx(sum(1.0 + i % 8 for i in range(1000)), rel=1e-9)


def test_bytes_after_many_flows() -> None:
    """Carried is the sum of size x weight to 1e-9 after 3000 overlapping flows, whatever the order of changes.

    Would catch: bytes lost at each change of rates, integration at stale rates.
    """
    bench, link, engine = Bench(start=1e4), Stage("link", 3.0e9), Stage("engine", 7.0e9)
    sizes = [1e5 + (i * 7919) % 100_003 for i in range(3000)]
    for i, size in enumerate(sizes):
        bench.move(f"{i}", size, {link: 1 / (1 + i % 3), engine: 1.0}, at=1e4 + i * 4e-5, priority=i % 2)
    assert len(bench.run()) == 3000
    assert link.carried == pytest.approx(sum(size / (1 + i % 3) for i, size in enumerate(sizes)), rel=1e-9)
    assert engine.carried == pytest.approx(sum(sizes), rel=1e-9)


def test_disjoint_flows_are_left_alone() -> None:
    """A start on another link, also through a common infinite stage, does not touch a flow: its `since` stays.

    Would catch: a cost per event that grows with the whole system.
    """
    bench, free = Bench(), Stage("free", inf)
    bench.move("a", 100.0, {Stage("left", 10.0): 1.0, free: 1.0})
    bench.move("b", 10.0, {Stage("right", 10.0): 1.0, free: 1.0}, at=3.0)
    bench.env.run(until=5.0)
    assert bench.flows["a"].since == 0.0
    assert bench.run() == {"b": 4.0, "a": 10.0}


def test_wrong_arguments_are_refused() -> None:
    """Negative or infinite sizes, caps of 0, nan rates and negative weights are bugs of the caller, named at once.

    Would catch: nan that spreads into every later time.
    """
    bench, link = Bench(), Stage("link", 10.0)
    for size, options in ((-1.0, {}), (inf, {}), (1.0, {"cap": 0.0}), (1.0, {"latency": -1.0}), (float("nan"), {})):
        with pytest.raises(ValueError, match="flow 'x'"):
            bench.fabric.move(size, {link: 1.0}, tag="x", **options)
    with pytest.raises(ValueError, match="stage link: weight -1"):
        bench.fabric.move(1.0, {link: -1.0})
    with pytest.raises(ValueError, match="stage dead: rate nan"):
        Stage("dead", float("nan"))


def test_check_names_the_invariant() -> None:
    """A rate above the capacity, and bytes that the rates do not account for, are each reported by name.

    Would catch: a check that never fails.
    """
    bench, link = Bench(), Stage("link", 10.0)
    bench.move("a", 100.0, {link: 1.0})
    bench.env.run(until=1.0)
    bench.flows["a"].rate = 11.0
    with pytest.raises(AssertionError, match="INV-RATES stage link"):
        bench.fabric.check()
    bench.flows["a"].rate = 10.0
    bench.flows["a"].settled += 5.0
    with pytest.raises(AssertionError, match="INV-BYTES stage link"):
        bench.fabric.check()
