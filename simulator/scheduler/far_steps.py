"""A planned step against far memory, whichever kind that is: counted, page by page, or shared with other replicas.

Events: none of its own; where replicas share a pool, time passes in it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import accumulate, pairwise

import simpy

from simulator.hardware.interference import Slow
from simulator.scheduler.far import FarMemory, FarStep
from simulator.scheduler.paged import PagedFar
from simulator.scheduler.planning import PlannedReplica, StepPlan
from simulator.scheduler.queues import Fair
from simulator.scheduler.shared import SharedFar


def far_step(
    replica: PlannedReplica, far: FarMemory, run: int, plan: StepPlan, layer: float, duration: float, slow: Slow, scores: float,
    swapped: float = 0.0,
) -> Generator[simpy.Event, None, float]:  # fmt: skip
    """The step against far memory, `layer` seconds of computation a layer, after `swapped` s of copies: its duration."""
    residency, model = replica.residency, replica.model
    (reading_far, reading), decodes = plan.far, max(1, plan.decodes)
    before = far.moved, far.sent, far.counts.useless
    host, head = model.host_time(plan.rows), model.head_time(plan.rows)
    readers = replica.readers.of_step(plan.decodes > 0) if replica.tenants is not None else {}
    if isinstance(far, PagedFar):
        step = far.paged_step(replica.batch.ending_next(), host, layer, head, plan.produced, duration, slow, decodes, scores)
        _record(replica, run, step, reading - step.reads.asked, before, readers, swapped)
        return swapped + step.duration
    pages = crossing(residency.layers(reading_far, reading, model.layers), plan.crosses)
    evicted = residency.take_evicted()
    if evicted:
        far.evicted(evicted)
    beyond = sum(pages)
    if replica.reuse is not None:
        pages = replica.reuse.seen(pages)
    asked = sum(pages)
    beyond -= asked
    lost = replica.lost(plan) if asked else 0.0
    if isinstance(far, SharedFar):  # time passes in it
        if replica.tenants is not None:
            far.flows.share = replica.tenants.mean_share(replica, readers or dict(plan.pieces))
        played = far.play(pages, lost, host, layer, head, plan.produced, decodes, scores) if asked else None
        step = yield from played or far.play_unread(plan.produced, duration)
    elif asked:
        if replica.reuse is not None:
            replica.reuse.busy(replica.clock, asked * replica.geometry.layer_bytes / far.path.read_rate)
        step = far.step(pages, lost, host, layer, head, plan.produced, slow, decodes, scores)
    else:
        step = far.unread(plan.produced, duration, slow)
    if replica.reuse is not None:
        step.reads.add(replica.reuse.settled())
    _record(replica, run, step, round(reading * model.layers * plan.crosses) - asked - beyond, before, readers, swapped)
    return swapped + step.duration


def crossing(pages: list[int], share: float) -> list[int]:
    """Of the pages of each layer, those that cross the fabric: their sum is right to half a page of one layer."""
    if share == 1.0:
        return pages
    until = [0, *(round(total * share) for total in accumulate(pages))]
    return [more - less for less, more in pairwise(until)]


def _record(
    replica: PlannedReplica, run: int, step: FarStep, near: int, before: tuple[int, float, int], readers: Mapping[int, int],
    swapped: float,
) -> None:  # fmt: skip
    """`readers`: who has read, where there are tenants."""
    reads = step.reads
    if readers and reads.asked:
        size = reads.asked * replica.geometry.layer_bytes / sum(readers.values())
        if isinstance(replica.queue, Fair):
            replica.queue.reads((request, weight * size) for request, weight in readers.items())
        if replica.tenants is not None:
            wasted = 1.0 + reads.useless / reads.asked  # pages for nothing are charged to those the step was made for
            replica.tenants.reads({request: weight * size * wasted for request, weight in readers.items()})
    replica.recorder.far.append(
        (run, swapped + step.duration, step.stall, step.codec, step.writeback, near, reads.asked, reads.demand, reads.in_time,
         reads.late, step.staged, step.dragged, step.predicting, swapped, *before)
    )  # fmt: skip
