"""Several replicas, as resolved values in SI units; part of `resolved`.

A group is replicas that are alike. What a group does not say itself (model, pool, codec, prefetcher) all replicas have in
common. No group: one replica, made of the scenario's own `gpus`, `scheduler` and `kv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.scenario.resolved import Gpus, Kv, Link, Scheduler


@dataclass(frozen=True)
class Group:
    """Replicas that are alike."""

    name: str
    role: str  # "both" | "prefill" | "decode"
    count: int
    gpus: Gpus  # of one replica
    scheduler: Scheduler
    kv: Kv  # what a group may have of its own: l1, l2, blocks
    tenants: tuple[str, ...] = ()  # whose requests it serves; (): everybody's


@dataclass(frozen=True)
class Transfer:
    """The way of KV from the replicas that compute prompts to those that decode, beside the ports of their GPUs."""

    link: Link
    links: int  # that all these replicas share
    threshold: int  # tokens: shorter prompts are computed where they are decoded


@dataclass(frozen=True)
class Cluster:
    groups: tuple[Group, ...] = ()
    routing: str = "round_robin"  # a name in `scheduler.routing.RULES`
    pool_shared: bool = True  # False: every replica has a pool of its own
    transfer: Transfer | None = None  # where there are prefill and decode replicas


ONE_REPLICA = Cluster()
