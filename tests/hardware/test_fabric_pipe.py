"""The FIFO pipe by hand."""

from __future__ import annotations

from math import inf

import pytest

from simulator.hardware.pipe import FifoPipe


def test_pipe_queues_and_pipelines_latency() -> None:
    """10 B/s, latency 1 s: 50 B at 0 s arrive at 6 s, 20 B at 2 s wait till 5 s, arrive at 8 s, 10 B at 20 s at 22 s.

    Would catch: latency that occupies the pipe (the second at 9 s), a pipe that does not idle, wrong counters.
    """
    pipe = FifoPipe(10.0, 1.0)
    assert [pipe.send(0.0, 50.0), pipe.send(2.0, 20.0), pipe.send(20.0, 10.0)] == [6.0, 8.0, 22.0]
    assert (pipe.carried, pipe.busy, pipe.waited, pipe.transfers, pipe.free_at) == (80.0, 8.0, 3.0, 3, 21.0)


def test_pipe_limits() -> None:
    """An infinite rate and zero bytes take the latency only; a rate of 0 or a negative latency is refused.

    Would catch: nan from inf / inf, an endless transfer.
    """
    assert FifoPipe(inf, 2.0).send(1.0, 1e12) == 3.0
    assert FifoPipe(10.0).send(1.0, 0.0) == 1.0
    for rate, latency in ((0.0, 0.0), (1.0, -1.0), (float("nan"), 0.0), (1.0, inf)):
        with pytest.raises(ValueError, match="rate"):
            FifoPipe(rate, latency)
