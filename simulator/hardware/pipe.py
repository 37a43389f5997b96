"""A first-in first-out pipe: the whole rate to one transfer at a time, by "busy until" arithmetic.

Modelled: a transfer starts when the pipe is free, occupies it for bytes / rate, and arrives one latency later; latency
is pipelined, it does not occupy the pipe (store and forward, one server: M/G/1 in the language of queues).
Not modelled: sharing (see `fabric.py`), priorities, taking a transfer back.
Events: none. `send` returns the time of completion; the caller waits for it if it has to.
"""

from __future__ import annotations

from math import inf


class FifoPipe:
    """`rate` in bytes/s (> 0, `inf` is valid), `latency` in seconds."""

    def __init__(self, rate: float, latency: float = 0.0):
        if not (rate > 0.0 and 0.0 <= latency < inf):
            raise ValueError(f"rate {rate} must be > 0, latency {latency} finite and >= 0")
        self.rate = rate
        self.latency = latency
        self.free_at = 0.0  # when the last transfer accepted so far has left the pipe
        self.carried = 0.0  # bytes accepted
        self.busy = 0.0  # seconds of occupation accepted
        self.waited = 0.0  # seconds spent in the queue, summed over transfers
        self.transfers = 0

    def send(self, now: float, size: float) -> float:
        """Accept `size` bytes at `now` (calls in order of time); returns when the last byte arrives."""
        start = self.free_at if self.free_at > now else now
        occupied = size / self.rate
        self.free_at = start + occupied
        self.carried += size
        self.busy += occupied
        self.waited += start - now
        self.transfers += 1
        return self.free_at + self.latency
