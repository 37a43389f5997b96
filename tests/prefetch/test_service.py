"""What a prediction costs: by hand, and at the scale at which the authors of CXL-SpecKV run theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.prefetch.service import Server
from simulator.scenario.resolved import Prefetch

SPEC = Prefetch("statistical", 4, 0.947, 0.872, 0.0, service=10e-6)


def test_no_service_time_is_no_server() -> None:
    """Would catch: a predictor whose calls cost nothing and that is dropped all the same; a delay other than its latency."""
    answer = Server(replace(SPEC, service=0.0, latency=3e-6), 5e-6).answer(64, 1e-9)
    assert (answer.share, answer.delay, answer.busy) == (1.0, 3e-6, 0.0)


def test_an_lstm_call_per_layer_and_request_is_51_ms_a_step() -> None:
    """80 layers x 64 sequences x 10 us, one after the other: 51.2 ms on the GPU.

    On the FPGA a layer of 250 us leaves time for 25 calls of 64: 39 % are answered, the last one 250 us later.
    Would catch: calls that run side by side, a batch that is divided twice, a queue that answers what it had no time for.
    """
    gpu = Server(replace(SPEC, placement="gpu"), 0.0).answer(64, 250e-6)
    assert 80 * gpu.busy == pytest.approx(51.2e-3) and gpu.share == 1.0
    fpga = Server(SPEC, 0.0).answer(64, 250e-6)
    assert fpga.share == pytest.approx(25 / 64) and fpga.delay == pytest.approx(250e-6) and fpga.busy == 0.0
    batched = Server(replace(SPEC, batch=64), 0.0).answer(64, 250e-6)
    assert batched.share == 1.0 and batched.delay == pytest.approx(10e-6)


def test_a_queue_drops_what_it_cannot_hold() -> None:
    """64 hints for a queue of 16: a quarter is answered, with or without time. Would catch: a queue that delays instead."""
    for service in (0.0, 1e-9):
        assert Server(replace(SPEC, queue=16, service=service), 0.0).answer(64, 1.0).share == 0.25
    assert Server(replace(SPEC, queue=256), 0.0).answer(64, 1.0).share == 1.0


def test_the_host_is_farther_away() -> None:
    """Would catch: a placement that is a name only."""
    near, far = (Server(replace(SPEC, placement=place), 1e-6).answer(4, 1.0).delay for place in ("fpga", "host"))
    assert far == pytest.approx(near + 1e-6)
