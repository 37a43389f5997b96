"""Steps of far memory as a whole: predictor, staging space and replay together."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom

from simulator import simulate
from simulator.scheduler import far as far_module
from tests.prefetch.far_steps import SCENARIO, ByEvents, far_memory, seconds_of

QUICKSTART = SCENARIO.parent / "quickstart.yaml"
PREDICTORS = ("none", "next_layer", "statistical", "oracle")
PAGE_TIME = far_memory("none")._page_time


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("l2", ["32 MiB", "0.5 GiB"])
def test_every_step_of_a_run_by_events(predictor: str, l2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded requests on a small L1, with prompts, arrivals, ends: each step takes as long as its replay by events.

    Would catch: a page time that is not that of the stages, a carry used by another step than the next, a step replayed
    with more staging space than there is.
    """
    twice = ByEvents(monkeypatch)
    init = far_module.FarMemory.__init__

    def remember(self: far_module.FarMemory, *args: object) -> None:
        init(self, *args)  # type: ignore[arg-type]
        twice.memory = self

    monkeypatch.setattr(far_module.FarMemory, "__init__", remember)
    small = ["workload.trace.limit=6", "workload.trace.rate_scale=8", "kv.l1=0.05 GiB", f"kv.l2={l2}"]
    simulate(QUICKSTART, set=[*small, f"prefetch.predictor={predictor}"], check=True)
    assert twice.steps > 100


# layers may differ where nothing ends (lru); where sequences end, all layers read as many pages (split)
equal = st.tuples(st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any), st.integers(1, 4))
falling = st.lists(st.integers(1, 60), min_size=1, max_size=4).map(lambda pages: sorted(pages, reverse=True))
far_steps = equal.map(lambda case: [case[0]] * case[1]) | falling.map(lambda pages: [[count] * 4 for count in pages])
times = st.floats(0.0, 60 * PAGE_TIME)


@given(far_steps, times, times, st.floats(1.0, 400.0), st.integers(1, 4), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_no_prefetcher_is_faster_than_the_oracle(
    steps: list[list[int]], layer: float, latency: float, staged: float, depth: int, coverage: float, accuracy: float
) -> None:
    """INV-BOUNDS, on the same pages with the same staging space, also where sequences end. New blocks nobody knows.

    Would catch: an oracle with a shorter window, wrong pages that make a prefetcher faster, staging that only others get.
    """
    took = {name: seconds_of(far_memory(name, staged, latency, depth, coverage, accuracy), steps, layer) for name in PREDICTORS}
    for name in PREDICTORS:
        assert took["oracle"] <= took[name] * (1 + 1e-9), name


@given(far_steps, times, times, st.floats(1.0, 300.0), st.floats(1.0, 4.0), st.sampled_from(["none", "next_layer", "oracle"]))
def test_more_staging_is_never_slower(
    steps: list[list[int]], layer: float, latency: float, staged: float, more: float, predictor: str
) -> None:
    """Would catch: waves that pay a latency too many, a window that shrinks, a step between waves and prefetch that is
    worse than either."""
    less = seconds_of(far_memory(predictor, staged, latency, 2), steps, layer)
    assert seconds_of(far_memory(predictor, staged * more, latency, 2), steps, layer) <= less * (1 + 1e-9)


@given(far_steps, st.floats(1.0, 300.0), st.sampled_from(["none", "next_layer", "oracle"]), st.integers(1, 4))
def test_staging_holds_what_is_in_it(steps: list[list[int]], staged: float, predictor: str, depth: int) -> None:
    """INV-CAPACITY of L2: right pages in flight or waiting for their layer fit in it at every instant.

    Would catch: one slot too few for the layer at work, a partial layer rounded up.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        twice = ByEvents(monkeypatch)
        twice.memory = far_memory(predictor, staged, 1e-3, depth)
        seconds_of(twice.memory, steps, 1e-3)
    assert twice.held <= staged * (1 + 1e-6)


def test_wrong_pages_hold_staging_space() -> None:
    """At accuracy 0.5 as many wrong pages as right ones are staged: 100 pages of room hold 2 layers of 20 + 20, not 5.

    Would catch: a poor predictor that uses more staging space than there is.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        twice = ByEvents(monkeypatch)
        twice.memory = far_memory("statistical", 100.0, 1e-3, depth=4, coverage=1.0, accuracy=0.5)
        seconds_of(twice.memory, [[20] * 8] * 3, 1e-3)
    assert twice.held <= 100


@pytest.mark.parametrize(("coverage", "accuracy"), [(0.947, 0.872), (0.3, 0.5)])
def test_coverage_in_is_coverage_out(coverage: float, accuracy: float) -> None:
    """Over 50 equal steps: what was prefetched before it was asked for, inside the binomial 99 % interval.

    Layer 0 of the first step is nobody's to prefetch. Would catch: pages proposed again in the next step, first layers of
    later steps on demand.
    """
    pages, layers, steps = 40, 80, 50
    memory = far_memory("statistical", 1e6, 1e-6, 4, coverage, accuracy)
    seconds_of(memory, [[pages] * layers] * steps, 1e-3)
    counts, possible = memory.counts, pages * (layers * steps - 1)
    low, high = binom.interval(0.99, possible, coverage)
    assert low <= counts.in_time + counts.late <= high
    memory.cancel()
    assert counts.useless / counts.issued == pytest.approx(1 - accuracy, abs=0.01)


@given(st.floats(0.0, 1.0), st.lists(st.integers(1, 60), min_size=4, max_size=4))
@example(1.0, [10, 10, 10, 10])
def test_the_oracle_wastes_nothing(lost: float, far: list[int]) -> None:
    """It proposes nothing for sequences that end; as many pages are asked for in each step as it was told.

    Would catch: an oracle that prefetches for the dead.
    """
    memory = far_memory("oracle", 1e4, 1e-3)
    for _ in range(3):
        continuing = [int(pages * (1 - lost)) for pages in far]
        memory.step(far, lost, 0.0, 1e-3, 0.0, 0.0)
        far = continuing
        if not max(far):
            break
    if not max(far):
        memory.cancel()
    assert memory.counts.useless == 0
