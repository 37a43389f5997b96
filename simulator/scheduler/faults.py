"""What faults do to a replica: pages and requests that are lost, capacity that is gone, reads that wait (design 3.2, issue of
faults). What breaks and what is left of the devices is `hardware/faults.py`.

Slower links, fewer boards, longer round trips: the path to far memory is that of the degraded devices from then on. Detailed
devices are built anew; what of the write-back was under way is sent again.
Lost boards (and what is cut off for good): pages are striped, so every sequence with a block nowhere but in L3 misses some of
it. Such requests start over with what they have given out (recompute), or end (abort). L3 is as large as what is left of it;
the newest requests are preempted until the claims of the others fit. Requests that do not fit what will ever be there again are
aborted, later ones rejected. Where boards fail faster than a request is served, it starts over for ever.
With a prefix cache L3 holds what nobody reads now: it is lost with a board, not found while the pool is out of reach, and
nobody waits (`reuse.py`).
A way that comes back: far reads wait. The replica stands still from the step that needs one until then; sequences that are in
L1 decode on, and admission counts L1 only.

A change takes effect at the first step that begins after it; what is prefetched then for that step is fetched again. Not
modelled: a step cut short, write-back lost on its way (it counts as written later), copies of pages that survive because they
wait in L2, a batch that goes on without those that wait.
Of replicas that share a pool each is told of its own pages and requests here; what is under way changes its rate at the moment
of the fault (`shared_faults.py`).
Events: none; it says when the next change is, and a run of steps ends there.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.hardware.faults import Health, Schedule, degraded
from simulator.hardware.pool import FarPath, far_path
from simulator.metrics.recorder import Struck
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory
from simulator.scheduler.planning import PlannedReplica


class Faults:
    """The faults of one replica's run."""

    def __init__(self, scenario: ScenarioResolved, schedule: Schedule, replica: PlannedReplica, far: FarMemory):
        self.scenario, self.schedule, self.replica, self.far = scenario, schedule, replica, far
        self._l3_blocks = replica.residency.l3_blocks if replica.reuse is None else replica.reuse.parked.capacity
        self._health = schedule.health
        self.lend: Callable[[], None] | None = None  # of a pool that replicas share: what of L3 is left for this one
        self._worlds: dict[Health, tuple[FarPath, ScenarioResolved]] = {self._health: (far.path, scenario)}

    @property
    def next_at(self) -> float:
        return self.schedule.next_at

    @property
    def reaches(self) -> bool:
        """Far pages can be had now."""
        return self._health.reachable

    def happen(self, clock: float) -> None:
        """All changes up to now, in their order."""
        reuse, due = self.replica.reuse, self.schedule.next_at <= clock
        while self.schedule.next_at <= clock:
            before = self._health
            occurrence, starts = self.schedule.turn()
            self._health = self.schedule.health
            struck = Struck(occurrence.at, occurrence.end, occurrence.fault.what)
            if starts:
                self.replica.recorder.faults.append(struck)
            self._resize()
            if self._health.boards < before.boards:
                self._lose(struck, clock, abort=occurrence.fault.on_loss == "abort")
            if starts:
                self._give_up(struck)
            if self._health != before:
                self._reach()
                if reuse is not None:
                    reuse.rerouted(clock)
        if reuse is not None and due:  # as it is now: what was between, others that share the pool may have seen before
            reuse.resize(self._l3_blocks * self._health.boards // self.schedule.pool.boards, clock)

    def holds(self) -> bool:
        """Nothing can go on before the next change: far pages are out of reach, or nobody that waits can enter."""
        replica = self.replica
        if not replica.running:
            if self.lend is not None or replica.over:
                return False  # one of those that share the pool may make room; who is over a budget waits for that
            return not replica.admits()
        if replica.reuse is not None:
            return False  # those that run are in L1; who enters finds nothing in the pool
        waiting = self._health.boards > 0 and not self._health.reachable
        return waiting and (not replica.residency.settled() or replica.growth() > replica.residency.near_room())

    def _resize(self) -> None:
        """Capacity as it is now, and as it will be."""
        replica, boards = self.replica, self.schedule.pool.boards
        if replica.reuse is not None:  # requests are in L1 alone
            return
        residency = replica.residency
        residency.resize(self._l3_blocks * self.schedule.lasting.boards // boards)
        replica.lasting = residency.capacity()
        if self.lend is not None:
            self.lend()
            return
        residency.resize(self._l3_blocks * self._health.boards // boards)
        replica.reach(residency.capacity() if self._health.reachable else residency.l1_blocks)

    def _lose(self, struck: Struck, clock: float, abort: bool) -> None:
        """What L3 held is incomplete."""
        replica = self.replica
        if replica.reuse is not None:
            replica.reuse.broke(struck.at, clock)
        missing = set(replica.residency.lost())
        for request in [one for one in reversed(replica.running) if one in missing]:
            if abort:
                replica.abort(request)
                struck.aborted += 1
            else:
                replica.preempt(request, keeps=False)
                struck.recomputed += 1
        while replica.residency.claimed > replica.residency.capacity():
            replica.preempt(next(reversed(replica.running)))
            struck.recomputed += 1

    def _give_up(self, struck: Struck) -> None:
        """Requests that will never fit again."""
        replica = self.replica
        for request in [one for one in (*replica.queue, *replica.running) if replica.needs(one) > replica.lasting]:
            replica.abort(request)
            struck.aborted += 1
        replica.release_held()

    def _reach(self) -> None:
        """The path as it is now."""
        recorder, far, left = self.replica.recorder, self.far, self._health
        if left.reachable:
            if left not in self._worlds:
                devices = degraded(self.scenario, left)
                self._worlds[left] = far_path(devices), devices
            far.use(*self._worlds[left])
        else:
            far.cut_off()
        kind = far.path.bound_kind if left.reachable else "link"
        recorder.bounds.append((recorder.runs.count, kind))
