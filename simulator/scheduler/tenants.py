"""What belongs to which tenant on the fabric: the weight of its flows, the bytes that cross for it, and its budget.

Weights. A flow that is somebody's counts at the arbiters with the weight of its tenant (`hardware.sharing`): the KV of a prompt
on its way to a decode replica has that of its request. The far reads of a replica are those of a whole step, which waits for
all of them; they count with the mean weight of the tenants whose KV the step reads, by bytes, and so does its write-back (of a
step that reads nothing: by the prompt tokens that it computes).
Weights are relative to that of the first tenant, so that equal ones leave every rate as it is, to the last bit. They are of
`each` flow, so who has twice as many transfers under way has twice the rate; or, where the tenant says so, of all its flows
`together`: its crossings that move now have equal parts of it, and so have the replicas whose steps work for it.

Budgets. A tenant with a `bandwidth` has a token bucket (`hardware.bucket`) of raw bytes, one for all replicas. KV of prompts
that crosses is a flow through it. What a step reads from far memory for the tenant, and what is swapped for it, is charged
whole; whoever would read for a tenant that owes waits (`patience.py`). Write-back is not charged: it makes room for others.

Events: those of the buckets.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import inf

import simpy

from simulator.hardware.bucket import Bucket
from simulator.hardware.fabric import Fabric, Share, Stage, Together
from simulator.scenario.resolved import Tenant


class Tenants:
    def __init__(self, env: simpy.Environment, tenant: Sequence[int], tenants: Sequence[Tenant]):
        """`tenant`: of each request, its number among `tenants`."""
        self._tenant = tenant
        self._share = [one.weight / tenants[0].weight for one in tenants]
        self._together = {
            number: Together(share)
            for (number, one), share in zip(enumerate(tenants), self._share, strict=True)
            if one.flows == "together"
        }
        self._using: dict[Hashable, set[int]] = {}  # replica -> tenants for which its step uses far memory
        self.buckets = {
            number: Bucket(env, f"budget of {one.name}", one.bandwidth, one.burst)
            for number, one in enumerate(tenants)
            if one.bandwidth < inf
        }
        self.crossed = [0.0] * len(tenants)  # raw bytes of prompts' KV that went from replica to replica
        self.swapped = [0.0] * len(tenants)  # raw bytes of preempted sequences, out and back
        self._waiting: dict[Hashable, set[int]] = {}  # replica -> tenants of which something waits there

    def on(self, fabric: Fabric) -> None:
        """Crossings are flows of this fabric."""
        for bucket in self.buckets.values():
            bucket.fabric = fabric

    @property
    def limited(self) -> bool:
        return bool(self.buckets)

    @property
    def throttled(self) -> list[float]:
        """Of each tenant, seconds in which something of it waited for its bucket."""
        return [self.buckets[one].throttled if one in self.buckets else 0.0 for one in range(len(self._share))]

    def share(self, request: int) -> Share:
        """For how many flows a crossing of this request counts."""
        tenant = self._tenant[request]
        return self._together.get(tenant, self._share[tenant])

    def mean_share(self, replica: Hashable, bytes_by_request: Mapping[int, float]) -> float:
        """For how many a flow of a replica counts that moves so much for each of these requests; 1 if nothing."""
        tenants = [self._tenant[request] for request in bytes_by_request]
        self._using[replica] = using = set(tenants)
        if not using:
            return 1.0
        share = {one: self._share[one] / self._replicas(one) for one in sorted(using)}
        sizes = bytes_by_request.values()
        return sum([share[one] * size for one, size in zip(tenants, sizes, strict=True)]) / sum(sizes)

    def _replicas(self, tenant: int) -> int:
        """Among how many replicas the weight of a tenant is divided."""
        return sum(tenant in using for using in self._using.values()) if tenant in self._together else 1

    def way(self, request: int) -> Iterable[tuple[Stage, float]]:
        """What its KV crosses beside the stages of its path."""
        bucket = self.buckets.get(self._tenant[request])
        return ((bucket.stage, 1.0),) if bucket is not None else ()

    def crosses(self, request: int, size: float) -> None:
        """Raw bytes of a request's KV go from one replica to another."""
        self.crossed[self._tenant[request]] += size

    def swaps(self, request: int, size: float) -> None:
        """Raw bytes of a preempted sequence go out or come back."""
        self.swapped[self._tenant[request]] += size
        self._charge({self._tenant[request]: size})

    def reads(self, bytes_by_request: Mapping[int, float]) -> None:
        """A step reads so much from far memory."""
        if self.buckets:
            total: dict[int, float] = {}
            for request, size in bytes_by_request.items():
                total[self._tenant[request]] = total.get(self._tenant[request], 0.0) + size
            self._charge(total)

    def _charge(self, by_tenant: Mapping[int, float]) -> None:
        for one, size in by_tenant.items():
            if one in self.buckets:
                self.buckets[one].charge(size)

    def over(self) -> frozenset[int]:
        """Tenants that owe bytes now."""
        return frozenset(one for one, bucket in self.buckets.items() if bucket.over)

    def ready(self, over: Iterable[int]) -> float:
        """When the first of these may go on, if nothing more is charged."""
        return min(self.buckets[one].ready for one in over)

    def check(self, replicas: int) -> None:
        """Assert that nobody had more than its budget, of so many replicas that charge."""
        for bucket in self.buckets.values():
            bucket.check(replicas)

    def wait(self, replica: Hashable, tenants: set[int]) -> None:
        """From now on something of these tenants waits there, and of no other."""
        before = self._waiting.get(replica, set())
        self._waiting[replica] = tenants
        for one, bucket in self.buckets.items():
            if (one in tenants) != (one in before):
                bucket.waits(1 if one in tenants else -1)
