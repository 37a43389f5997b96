"""What belongs to which tenant on the fabric: the weight of its flows, and the bytes that cross for it.

A flow that is somebody's counts at the arbiters with the weight of its tenant (`hardware.sharing`): the KV of a prompt on its
way to a decode replica has that of its request. The far reads of a replica are those of a whole step, which waits for all of
them; they count with the mean weight of the tenants whose KV the step reads, by bytes, and so does the replica's write-back.
Weights are relative to that of the first tenant, so that equal ones leave every rate as it is, to the last bit. They share out
what is there between flows, not between tenants: who has twice as many transfers under way has twice the rate.

Events: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.scenario.resolved import Tenant


class Tenants:
    def __init__(self, tenant: Sequence[int], tenants: Sequence[Tenant]):
        """`tenant`: of each request, its number among `tenants`."""
        self._tenant = tenant
        self._share = [one.weight / tenants[0].weight for one in tenants]
        self.crossed = [0.0] * len(tenants)  # raw bytes of prompts' KV that went from replica to replica

    def share(self, request: int) -> float:
        """For how many flows one of this request counts."""
        return self._share[self._tenant[request]]

    def mean_share(self, bytes_by_request: Mapping[int, float]) -> float:
        """For how many a flow counts that moves so much for each of these requests."""
        return sum([self.share(one) * size for one, size in bytes_by_request.items()]) / sum(bytes_by_request.values())

    def crosses(self, request: int, size: float) -> None:
        """Raw bytes of a request's KV go from one replica to another."""
        self.crossed[self._tenant[request]] += size
