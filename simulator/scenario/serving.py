"""Who is served how, of the resolved scenario: scheduler, SLO classes, tenants. In SI units, as all of `resolved`."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Scheduler:
    batching: str  # a line in `scheduler.batching.BATCHINGS`
    max_batch: int
    token_budget: int  # tokens in a step: decodes first, the rest prefill
    prefill_chunk: int  # most tokens of one prompt in a step
    reserve: str  # "prompt" | "full"
    watermark: float  # share of all blocks kept free at admission
    asynchronous: bool  # a step is planned while the one before runs
    host_overhead: float  # s per step
    host_per_sequence: float  # s per token that a step gives out
    queue: str = "fcfs"  # a line in `scheduler.queues.ORDERS`
    preemption: str = "recompute"  # "recompute" | "swap_host" | "swap_pool"
    swap_space: float = 0.0  # bytes of host memory per GPU
    admission: str = "queue"  # "queue" | "limit" | "deadline"
    max_queue: int = 0  # limit: most requests that wait


@dataclass(frozen=True)
class SloClass:
    """Requests of one kind."""

    name: str
    ttft: float | None  # s
    tpot: float | None
    weight: float = 1.0
    priority: float = 0.0  # lower goes first
    share: float = 1.0  # of the requests whose class is not recorded


@dataclass(frozen=True)
class Slo:
    ttft: float | None  # s
    tpot: float | None  # s
    given: tuple[SloClass, ...] = ()

    @property
    def classes(self) -> tuple[SloClass, ...]:
        """At least one: requests are all of one class where none are given."""
        return self.given or (SloClass("all", self.ttft, self.tpot),)


@dataclass(frozen=True)
class Tenant:
    name: str
    share: float  # of the requests whose tenant is not recorded
    weight: float  # what it is entitled to, relative to the others
    flows: str = "each"  # which of its flows the weight is of: "each" | "together"
    bandwidth: float = inf  # raw bytes/s that may cross the fabric for it in the long run
    burst: float = 0.0  # raw bytes that may do so at once
