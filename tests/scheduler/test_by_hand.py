"""Who runs in which step, worked out by hand. Step = one row of the recorder with steps taken singly.

Blocks have 16 tokens; the model is that of `tests/properties/small.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from tests.properties.small import Rows, Settings, blocks, requests, scenario, served

FAR_AWAY = 100.0  # s, long after everything else has ended


def simulated(settings: Settings, rows: Rows) -> Simulation:
    """A finished simulation of these requests, every step single."""
    base = {"workload.synthetic": _UNUSED} | dict(settings)
    simulation = Simulation(scenario(base).resolved, requests(rows), coalesce=False)
    simulation.run()
    return simulation


_UNUSED = {
    "requests": 1,
    "arrivals": {"process": "at_once"},
    "input": {"dist": "fixed", "tokens": "1 token"},
    "output": {"dist": "fixed", "tokens": "1 token"},
}


def steps(simulation: Simulation) -> list[tuple[int, int, int]]:
    """(decoding sequences, prompt tokens, tokens given out) of each step."""
    runs = simulation.recorder.runs.arrays()
    return list(zip(runs["decodes"].tolist(), runs["prefill"].tolist(), runs["rows"].tolist(), strict=True))


def starts(simulation: Simulation) -> list[float]:
    started: list[float] = simulation.recorder.runs.arrays()["start"].tolist()
    return started


def ends(simulation: Simulation) -> list[float]:
    """When each step ended: when the next one began (no idle time between them), the last one at the clock."""
    return [*starts(simulation)[1:], simulation.engine.clock]


def test_budget_goes_to_decodes_then_to_prompts_in_order():
    """Budget 8, three prompts of 6 at the same instant: 6+2, then 1 decode + 4+3, ...

    Would catch: prompts before decodes, a budget exceeded or left over, last come first served, a first token before the
    last piece of its prompt.
    """
    run = simulated({"scheduler.token_budget": "8 tokens"}, [(0.0, 6, 3), (0.0, 6, 2), (0.0, 6, 2)])
    assert steps(run) == [
        (0, 8, 1),  # A 6 (first token), B 2
        (1, 7, 2),  # A decodes; B 4 (first token), C 3
        (2, 3, 3),  # A's third and last, B's second and last; C 3 (first token)
        (1, 0, 1),  # C's second and last
    ]
    at = ends(run)
    assert list(run.recorder.first_token) == [at[0], at[1], at[2]]
    assert list(run.recorder.finished) == [at[2], at[2], at[3]]


def test_prefill_chunk_limits_each_prompt_not_the_step():
    """Chunk 3 in a budget of 8: two prompts advance together, 3 tokens each.

    Would catch: the chunk taken as the budget of all prompts, or ignored; a short prompt held behind a long one.
    """
    settings = {"scheduler.token_budget": "8 tokens", "scheduler.prefill_chunk": "3 tokens"}
    run = simulated(settings, [(0.0, 7, 1), (0.0, 4, 1)])
    assert steps(run) == [(0, 6, 0), (0, 4, 1), (0, 1, 1)]
    assert list(run.recorder.finished) == [ends(run)[2], ends(run)[1]]


def test_max_batch_counts_prompts_in_work():
    """Two places, three requests: the third enters when the first has ended.

    Would catch: max_batch applied to decodes only, a place given back one step late, arrivals of one instant reordered.
    """
    run = simulated({"scheduler.max_batch": 2}, [(0.0, 4, 2), (0.0, 4, 3), (0.0, 4, 1)])
    assert steps(run) == [(0, 8, 2), (2, 0, 2), (1, 4, 2)]
    at = ends(run)
    assert list(run.recorder.admitted) == [0.0, 0.0, at[1]]
    assert list(run.recorder.finished) == [at[1], at[2], at[2]]


def test_one_output_token_ends_with_its_prompt():
    """Would catch: a decode step for a token that prefill has already given out; TPOT of one token other than empty."""
    result = served({}, [(0.0, 20, 1)])
    row = result.requests.iloc[0]
    assert (row["ttft_s"], row["first_token_s"]) == (row["e2e_s"], row["finished_s"])
    assert np.isnan(row["tpot_s"])
    assert result.summary["latency"]["tpot_s"]["mean"] is None
    assert result.summary["latency"]["itl_s"]["mean"] is None
    assert result.summary["simulation"]["steps"] == 1


def test_arrival_during_a_step_waits_for_its_end():
    """Would catch: a request admitted in the middle of a step or run, or one step after the step in which it came."""
    alone = simulated({}, [(0.0, 16, 6)])
    second = 0.5 * (starts(alone)[2] + starts(alone)[3])
    for coalesce in (False, True):
        base = {"workload.synthetic": _UNUSED}
        run = Simulation(scenario(base).resolved, requests([(0.0, 16, 6), (second, 16, 1)]), coalesce)
        run.run()
        assert run.recorder.admitted[1] == starts(alone)[3]
        assert run.recorder.queue_first[1] == starts(alone)[3] - second


def test_arrival_at_the_end_of_a_step_enters_the_next():
    """Would catch: `<` for `<=` where the clock meets an arrival: one step too late, or an idle time of zero for ever."""
    alone = simulated({}, [(0.0, 16, 6)])
    run = simulated({}, [(0.0, 16, 6), (starts(alone)[3], 16, 1)])
    assert run.recorder.admitted[1] == starts(alone)[3]
    assert run.recorder.queue_first[1] == 0.0
    assert steps(run)[3] == (1, 16, 2)


def test_idle_periods_are_skipped():
    """The same request again and again, long apart: the same latencies, one event per idle period.

    Would catch: state left over from before, time that passes while nothing runs, stepping through idle time.
    """
    rows = [(FAR_AWAY * index, 33, 5) for index in range(4)]
    result = served({}, rows)
    np.testing.assert_allclose(result.columns["e2e_s"], result.columns["e2e_s"][0], rtol=1e-9)
    assert result.summary["utilization"]["gpu"] < 1e-3
    assert result.summary["bound_by"] == "arrivals"
    simulation = result.summary["simulation"]
    assert simulation["events"] <= simulation["steps"] + 3


def test_what_can_never_fit_is_rejected_on_arrival():
    """L1 of 3 blocks: 48 cached tokens fit, the last output token needs no place.

    Would catch: a limit off by one token, a rejected request that takes time or blocks, one that stops those behind it.
    """
    result = served({"kv.l1": blocks(3)}, [(0.0, 40, 9), (0.0, 40, 10), (0.0, 49, 1), (0.0, 50, 1), (0.0, 10, 2)])
    assert result.columns["status"].tolist() == ["finished", "rejected", "rejected", "rejected", "finished"]
    assert result.summary["requests"] | {"arrived": 5, "finished": 2, "rejected": 3} == result.summary["requests"]
    assert np.isnan(result.columns["admitted_s"][1])


def test_longer_than_max_context_is_rejected():
    """Would catch: a request longer than the model's context served, or the limit taken for the prompt alone."""
    settings = {"model.max_context": "64 tokens"}
    result = served(settings, [(0.0, 60, 4), (0.0, 60, 5), (0.0, 1, 63)])
    assert result.columns["status"].tolist() == ["finished", "rejected", "finished"]


def test_admission_keeps_the_watermark_free():
    """10 blocks, watermark 0.2 = 2 blocks; each prompt claims 3: two enter (6 + 2 <= 10), a third would make 9 + 2.

    Would catch: no watermark, one applied to an empty server (a prompt of 9 blocks would never enter), or to all blocks
    instead of the free ones.
    """
    settings: dict[str, Any] = {"kv.l1": blocks(10), "scheduler.watermark": 0.2}
    run = simulated(settings, [(0.0, 40, 3), (0.0, 40, 4), (0.0, 40, 1)])
    assert steps(run) == [(0, 80, 2), (2, 0, 2), (2, 0, 2), (1, 40, 2)]
    settings["scheduler.watermark"] = 0.1
    assert steps(simulated(settings, [(0.0, 40, 2), (0.0, 40, 2), (0.0, 40, 1)]))[0] == (0, 120, 3)
    alone = simulated(settings, [(0.0, 144, 2)])
    assert list(alone.recorder.status) == [1]


def test_head_of_the_queue_blocks_the_rest():
    """A prompt that does not fit yet keeps a small one behind it waiting: first come, first served.

    Would catch: small requests that overtake and starve large ones.
    """
    settings = {"kv.l1": blocks(6), "scheduler.watermark": 0.0}
    run = simulated(settings, [(0.0, 60, 4), (0.0, 60, 2), (0.0, 5, 1)])
    assert run.recorder.admitted[2] == run.recorder.admitted[1] == run.recorder.finished[0]


def test_reserve_full_never_preempts():
    """5 blocks; each request will need 3 of them (20 + 28 tokens): one after the other. By prompts, both enter at once.

    Would catch: `reserve: full` that claims the prompt only, or one block too many (an output token that is never cached).
    """
    rows = [(0.0, 20, 29), (0.0, 20, 29)]
    full = simulated({"kv.l1": blocks(5), "scheduler.reserve": "full", "scheduler.watermark": 0.0}, rows)
    assert list(full.recorder.admitted) == [0.0, full.recorder.finished[0]]
    both = simulated({"kv.l1": blocks(6), "scheduler.reserve": "full", "scheduler.watermark": 0.0}, rows)
    assert list(both.recorder.admitted) == [0.0, 0.0]
    assert list(both.recorder.preemptions) == [0, 0]
    prompts = simulated({"kv.l1": blocks(5), "scheduler.watermark": 0.0}, rows)
    assert list(prompts.recorder.admitted) == [0.0, 0.0]
    assert sum(prompts.recorder.preemptions) == 1


def test_preemption_of_the_newest_and_recompute():
    """4 blocks, prompts A 20 and B 20 (2 blocks each), 20 tokens each. Both want a third block when 32 tokens are cached,
    after 12 decodes: B, the newest, goes and starts over with its 20 + 13 tokens when A has ended.

    Would catch: the oldest preempted, B's tokens given out twice or lost, a recompute of the prompt alone, B back before
    there is room, a gap between tokens that leaves out the time in the queue.
    """
    run = simulated({"kv.l1": blocks(4), "scheduler.watermark": 0.0}, [(0.0, 20, 20), (0.0, 20, 20)])
    expected = [(0, 40, 2)] + [(2, 0, 2)] * 12 + [(1, 0, 1)] * 7 + [(0, 33, 1)] + [(1, 0, 1)] * 6
    assert steps(run) == expected
    at, recorder = ends(run), run.recorder
    assert list(recorder.preemptions) == [0, 1]
    assert list(recorder.finished) == [at[19], at[26]]
    assert list(recorder.queue_later) == [0.0, pytest.approx(at[19] - at[12], rel=1e-12)]
    assert recorder.gaps == [(1, 20, at[12], False)]
    result = served({"kv.l1": blocks(4), "scheduler.watermark": 0.0}, [(0.0, 20, 20), (0.0, 20, 20)])
    assert result.columns["finished_s"].tolist() == list(recorder.finished)
    gaps = np.concatenate([np.repeat(np.diff(at[:13]), 2), np.diff(at[12:20]), [at[20] - at[12]], np.diff(at[20:])])
    assert result.summary["latency"]["itl_s"]["mean"] == pytest.approx(gaps.mean(), rel=1e-12)
    assert result.summary["latency"]["itl_s"]["p99"] == pytest.approx(np.percentile(gaps, 99), rel=1e-9)


def test_preempted_in_the_step_in_which_it_was_given_a_block():
    """B (admitted second, short prompt) decodes before A (long prompt in pieces of 8); both start a block in the same step,
    with one left. B must not be given it, lose it by preemption, and leave it held for ever.

    Would catch: blocks given out in the order of joining the batch while preemption takes the newest admitted: the newest
    grows first and is released without its new block.
    """
    settings = {"kv.l1": blocks(6), "scheduler.watermark": 0.0, "scheduler.prefill_chunk": "8 tokens"}
    rows = [(0.0, 35, 30), (0.0, 16, 30)]
    result = served(settings, rows)
    assert result.columns["preemptions"].tolist() == [0, 1]
    run = simulated(settings, rows)
    assert (run.engine.residency.l1_used, run.engine.residency.claimed) == (0, 0)


def test_static_batches():
    """Two places, three requests, budget 8: prompts first, all of them; then decodes until the last one ends; then the rest.

    Would catch: decodes beside prompts, a place refilled before the batch has ended, the wait of the first prompt for the
    second left out of the gap between its first two tokens.
    """
    settings = {"scheduler.batching": "static", "scheduler.max_batch": 2, "scheduler.token_budget": "8 tokens"}
    rows = [(0.0, 8, 3), (0.0, 8, 2), (0.0, 8, 2)]
    run = simulated(settings, rows)
    assert steps(run) == [(0, 8, 1), (0, 8, 1), (2, 0, 2), (1, 0, 1), (0, 8, 1), (1, 0, 1)]
    at = ends(run)
    assert list(run.recorder.first_token) == [at[0], at[1], at[4]]
    assert list(run.recorder.finished) == [at[3], at[2], at[5]]
    assert list(run.recorder.admitted) == [0.0, 0.0, at[3]]
    gaps = [at[2] - at[0], at[3] - at[2], at[2] - at[1], at[5] - at[4]]
    itl = served(settings, rows).summary["latency"]["itl_s"]
    assert itl["mean"] == pytest.approx(np.mean(gaps), rel=1e-9)
    assert itl["p90"] == pytest.approx(np.percentile(gaps, 90), rel=1e-9)


def test_static_batch_is_formed_from_what_waits():
    """A request that comes while a batch runs waits for its end, however many places are free.

    Would catch: static batching that fills up, or that waits until a batch is full.
    """
    run = simulated({"scheduler.batching": "static"}, [(0.0, 16, 5), (1e-6, 16, 1)])
    assert run.recorder.admitted[1] == run.recorder.finished[0]
