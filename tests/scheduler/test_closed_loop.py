"""Requests that arrive after the end of others: sessions in a closed loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.experiments.simulation import Simulation
from simulator.scheduler.arrivals import Arrivals
from simulator.workload.requests import Loop, Requests, all_at_once, first, scale, starting, window
from tests.properties.small import requests, scenario
from tests.scheduler.test_by_hand import _UNUSED

ROWS = [(0.0, 40, 5), (0.0, 30, 40), (1.0, 60, 5), (1.0, 20, 1), (2.0, 80, 3)]
AFTER, DELAY = [-1, -1, 0, 0, 2], [0.0, 0.0, 1.0, 1.0, 0.5]


def closed() -> Requests:
    """0 -> 2 -> 4 and 0 -> 3 (a child beside 2); 1 waits for none."""
    loop = Loop(np.array(AFTER), np.array(DELAY))
    return starting(replace(requests(ROWS), loop=loop, session=np.array([0, 1, 0, 0, 0])), requests(ROWS).arrival)


@pytest.mark.parametrize("coalesce", [True, False])
def test_a_turn_arrives_its_delay_after_the_end_of_the_one_it_waits_for(coalesce: bool) -> None:
    """Would catch turns that are sent at recorded times, or after the wrong request, or that do not wake an idle server."""
    work = closed()
    assert work.loop is not None
    simulation = Simulation(scenario({"workload.synthetic": _UNUSED}).resolved, work, coalesce=coalesce)
    simulation.run()
    ended, arrived = simulation.recorder.finished, simulation.engine.arrival
    assert not np.isnan(ended).any()
    for row, (before, delay) in enumerate(zip(work.loop.after, work.loop.delay, strict=True)):
        assert arrived[row] == (ended[before] + delay if before >= 0 else 0.0)  # the very sum: no tolerance
        assert simulation.recorder.admitted[row] >= arrived[row]


def test_turns_of_a_rejected_request_still_come() -> None:
    """Would catch a session that is lost, and the run with it, when one of its turns cannot be served."""
    work = closed()
    prompts = work.input_tokens.copy()
    prompts[0] = 10**9
    simulation = Simulation(scenario({"workload.synthetic": _UNUSED}).resolved, replace(work, input_tokens=prompts))
    simulation.run()
    assert np.isnan(simulation.recorder.finished[0]) and not np.isnan(simulation.recorder.finished[1:]).any()
    assert simulation.engine.arrival[2] == 1.0  # a rejection takes no time


def test_arrivals_come_in_the_order_of_time_then_rows() -> None:
    """Would catch a tie between a recorded and an announced arrival that is decided by when it was announced."""
    arrivals = Arrivals([0.0, 0.0, 3.0, 0.0, 5.0], [-1, 0, -1, 0, -1], [0.0, 3.0, 0.0, 5.0, 0.0])
    assert arrivals.take() == 0 and arrivals.next == 3.0
    arrivals.ended(0, 0.0)
    taken = []
    while arrivals.left:
        taken.append((arrivals.next, arrivals.take()))
    assert taken == [(3.0, 1), (3.0, 2), (5.0, 3), (5.0, 4)]
    assert arrivals.next == float("inf")


def test_times_of_a_closed_loop_without_service() -> None:
    """Rows in order of the times of a server that takes none; scaling moves the starts and leaves the thinking.

    Would catch a `rate_scale` that makes users think faster, and predecessors that are not found again after sorting.
    """
    work = closed()
    assert work.arrival.tolist() == [0.0, 0.0, 1.0, 1.0, 1.5]
    late = starting(work, np.array([4.0, 0.0, 0.0, 0.0, 0.0]))
    assert late.arrival.tolist() == [0.0, 4.0, 5.0, 5.0, 5.5] and late.loop is not None
    assert late.loop.after.tolist() == [-1, -1, 1, 1, 2] and late.input_tokens.tolist() == [30, 40, 60, 20, 80]
    slow = scale(late, 0.5)
    assert slow.arrival.tolist() == [0.0, 8.0, 9.0, 9.0, 9.5]
    assert all_at_once(late).arrival.tolist() == [0.0, 0.0, 1.0, 1.0, 1.5]


def test_a_window_cuts_a_session_and_keeps_the_rest_in_order() -> None:
    """Would catch rows that wait for one outside the window, and would never arrive."""
    cut = window(closed(), 0.5, 10.0)
    assert cut.loop is not None and cut.loop.after.tolist() == [-1, -1, 0] and cut.arrival.tolist() == [0.5, 0.5, 1.0]
    some = first(closed(), 3)
    assert some.loop is not None and some.loop.after.tolist() == [-1, -1, 0]
