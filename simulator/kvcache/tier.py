"""A tier that evicts: a bounded set of pages, of which the one with the lowest key goes first.

A page is a number. Who uses the tier tells it of batches of distinct pages that are used together (the pages of a layer
group in a decode step; the blocks of a request in a recorded prefix trace). A policy (`eviction`) gives every used page a
key; what was not held comes in; then the pages with the lowest keys leave until the rest fits.
Capacity is enforced between batches, and a newcomer may leave at once (bypass).

Victims come from a buffer of the lowest keys, kept sorted. It is filled by a partial sort of all that is held; a page that
gets a key below the buffer's edge joins it, one whose key has changed is skipped. So a batch costs a few vector operations
of its own size, and the tier's size only once in every eighth of it.

Where every new key is above all before (`ascending`: lru, fifo), no sort is needed: pages stand in a queue in the order in
which they got their keys, and victims are its first ones that still have theirs. Keys below 0 and the others (`hot`) have a
queue each. Where keys depend on the page alone (`static`: share), few of many newcomers come in: those with the highest keys
are compared, where no two pages have the same.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from simulator.kvcache.eviction import Policy

Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.float64]
Queue = deque[tuple[Ids, Keys]]

LEAST_BUFFER = 64


def _in_order(ids: Ids, keys: Keys) -> bool:
    """By key, among equals by number."""
    rises = (keys[1:] > keys[:-1]) | ((keys[1:] == keys[:-1]) & (ids[1:] > ids[:-1]))
    return bool(rises.all())


class Tier:
    def __init__(self, policy: Policy, capacity: int, pages: int = 0, weight: NDArray[np.int64] | None = None):
        """`capacity` in units of weight; `weight`: of page number p, weight[p % len(weight)] (1 if absent)."""
        self.policy, self.capacity = policy, capacity
        self.used = 0
        self.batch = 0  # batches so far
        self.held = np.zeros(pages, np.bool_)
        self.key = np.zeros(pages, np.float64)
        self._weight = np.ones(1, np.int64) if weight is None else weight
        self._each = int(self._weight[0]) if np.all(self._weight == self._weight[0]) else 0  # what all weigh, if it is the same
        self._weight_of = np.zeros(0, np.int16)  # of each page, if it is not
        self._buffer = np.zeros(0, np.int64)  # pages by key, lowest first
        self._buffer_key = np.zeros(0, np.float64)
        self._edge = -np.inf  # no page outside the buffer has a lower key
        self._complete = False  # no page that can leave is outside the buffer
        self._late: list[tuple[Ids, Keys]] = []  # keys below the edge, to be merged
        self._late_count = 0
        self._merged = False  # into this buffer
        self._queues: list[Queue] = [deque(), deque()]  # ascending: pages and the keys that they got
        self._queued = self._lean = 0  # pages in them, and when all of them had their keys
        self._weigh_up_to(pages)

    def resize(self, pages: int) -> None:
        """Numbers up to `pages` may be used."""
        more = pages - len(self.held)
        if more > 0:
            self.held = np.concatenate([self.held, np.zeros(more, np.bool_)])
            self.key = np.concatenate([self.key, np.zeros(more)])
            self._weigh_up_to(pages)

    def _weigh_up_to(self, pages: int) -> None:
        if not self._each:
            self._weight_of = np.resize(self._weight.astype(np.int16), pages)

    def weigh(self, ids: Ids) -> int:
        return len(ids) * self._each if self._each else int(self._weight_of[ids].sum())

    def use(self, ids: Ids) -> tuple[Bools, Ids, Ids]:
        """A batch, in the order of use: which of them were held, those that came in and stayed, those that left for it."""
        held = self.held[ids]
        self.batch += 1
        new = ids[~held]
        if self.policy.static:
            keys = self.policy.keys(self, new, held[~held])
        else:
            keys = self.policy.keys(self, ids, held)
            if len(new) < len(ids):
                self._set(ids[held], keys[held])
                keys = keys[~held]
        if not len(new):
            return held, new, self.shrink()
        came, gone = self._admit(new, keys)
        return held, came, gone

    def _admit(self, new: Ids, keys: Keys) -> tuple[Ids, Ids]:
        """Newcomers and what is held compete; among equals the newcomer leaves. Those that stay, and those that left."""
        excess = self.used + self.weigh(new) - self.capacity
        none = new[:0]
        if excess <= 0:
            self.insert(new, keys)
            return new, none
        if self.used <= self.capacity:  # if all newcomers are below all that is held, nothing moves
            lowest = self._peek(1)
            if not len(lowest) or keys.max() <= self.key[lowest[0]]:
                if self.used >= self.capacity:
                    self.policy.evicted(self, new, keys)
                    return none, none
                order = np.lexsort((new, keys))
                leave = self._until(new[order], excess)
                self.policy.evicted(self, new[order[:leave]], keys[order[:leave]])
                stay = np.sort(order[leave:])
                if len(stay):
                    self.insert(new[stay], keys[stay])
                return new[stay], none
        # layers of a block have equal keys: which of them leaves first must not depend on who was compared
        distinct = self.policy.static and not self.policy.ascending and len(self._weight) == 1
        most = LEAST_BUFFER if distinct else len(new)
        while most < len(new):  # those with the highest keys: where one of them leaves, so do all the others
            best = keys >= np.partition(keys, -most)[-most]
            others = new[~best]
            rest = excess - self.weigh(others)
            if rest > 0:
                left, left_keys, stays = self._compete(new[best], keys[best], rest)
                if not stays.all():
                    self.policy.evicted(self, others, keys[~best])
                    new, keys = new[best], keys[best]
                    break
            most *= 8
        else:
            left, left_keys, stays = self._compete(new, keys, excess)
        self.policy.evicted(self, left, left_keys)
        gone = left[self.held[left]]
        self.held[gone] = False
        self.used -= self.weigh(gone)
        came = new[stays]
        self.insert(came, keys[stays])
        return came, gone

    def _compete(self, new: Ids, keys: Keys, excess: int) -> tuple[Ids, Keys, Bools]:
        """Of newcomers and what is held, those that would leave, in order, and their keys; which newcomers would stay."""
        old = self._peek(excess)
        both, all_keys = np.concatenate([new, old]), np.concatenate([keys, self.key[old]])
        if _in_order(new, keys) and _in_order(old, all_keys[len(new) :]):
            order = np.argsort(all_keys, kind="stable")
        else:
            order = np.lexsort((both, np.arange(len(both)) >= len(new), all_keys))
        left = order[: self._until(both[order], excess)]
        stays = np.ones(len(new), np.bool_)
        stays[left[left < len(new)]] = False
        return both[left], all_keys[left], stays

    def _until(self, ids: Ids, excess: int) -> int:
        """How many of these, from the first, weigh `excess`; all if they do not."""
        if self._each:
            return min(-(-excess // self._each), len(ids))
        return min(int(np.searchsorted(np.cumsum(self._weight_of[ids]), excess)) + 1, len(ids))

    def put(self, ids: Ids) -> None:
        """These pages, not held so far, come in with the keys they have; nothing leaves yet."""
        self.held[ids] = True
        self.used += self.weigh(ids)

    def insert(self, ids: Ids, keys: Keys) -> None:
        """These pages, not held so far, come in with these keys."""
        self._set(ids, keys)
        self.put(ids)

    def rekey(self, ids: Ids, keys: Keys) -> None:
        self._set(ids, keys)

    def drop(self, ids: Ids) -> Ids:
        """These pages are gone for another reason than eviction; of them, those that were held."""
        gone = ids[self.held[ids]]
        self.held[gone] = False
        self.used -= self.weigh(gone)
        return gone

    def shrink(self) -> Ids:
        """Evict down to the capacity: the pages that leave, in order. What is pinned stays."""
        excess = self.used - self.capacity
        if excess <= 0:
            return np.zeros(0, np.int64)
        gone = self._peek(excess)
        self.policy.evicted(self, gone, self.key[gone])
        self.held[gone] = False
        self.used -= self.weigh(gone)
        return gone

    def _set(self, ids: Ids, keys: Keys) -> None:
        if self.policy.ascending:
            self._append(ids, keys)
            self.key[ids] = keys
            return
        below = keys < self._edge
        if below.any():
            late, late_keys = ids[below], keys[below]
            same = self.held[late] & (self.key[late] == late_keys)  # already there with this key
            if same.any():
                late, late_keys = late[~same], late_keys[~same]
            self._late.append((late, late_keys))
            self._late_count += len(late)
            if self._late_count > LEAST_BUFFER + len(self._buffer) // 4:  # filling the buffer anew is cheaper
                self._buffer, self._buffer_key, self._edge = self._buffer[:0], self._buffer_key[:0], -np.inf
                self._late, self._late_count, self._complete = [], 0, False
        self.key[ids] = keys

    def _peek(self, excess: int) -> Ids:
        """The fewest pages with the lowest keys that weigh at least `excess`, in order; all that can leave if less is held."""
        if self.policy.ascending:
            return self._first(excess)
        if self._late:
            self._merge()
        while True:
            ids, keys = self._buffer, self._buffer_key
            look = excess + LEAST_BUFFER
            while True:
                part = ids[:look]
                valid = np.flatnonzero(self.held[part] & (self.key[part] == keys[:look]))
                known = keys[valid]
                if self._merged and (known[1:] == known[:-1]).any():  # a page that got back an earlier key is there twice
                    valid = valid[np.sort(np.unique(part[valid], return_index=True)[1])]
                found = part[valid]
                take = self._until(found, excess)
                if self.weigh(found[:take]) >= excess or look >= len(ids):
                    break
                look *= 2
            if len(valid):
                self._buffer, self._buffer_key = ids[valid[0] :], keys[valid[0] :]
            if self.weigh(found[:take]) >= excess or self._complete:
                return found[:take]
            self._refill(excess)

    def _append(self, ids: Ids, keys: Keys) -> None:
        if self._queued > 2 * self._lean + 64 * LEAST_BUFFER:
            self._queues = [self._standing(queue) for queue in self._queues]
            self._queued = self._lean = sum([len(one) for queue in self._queues for one, _ in queue])
        movable, low = keys < np.inf, keys < 0.0
        if low.any():
            self._line_up(self._queues[0], ids[low], keys[low])
            movable &= ~low
        if not movable.all():
            ids, keys = ids[movable], keys[movable]
        self._line_up(self._queues[1], ids, keys)

    def _line_up(self, queue: Queue, ids: Ids, keys: Keys) -> None:
        if not len(ids):
            return
        self._queued += len(ids)
        if queue and not len(queue[-1][0]):
            queue.pop()
        if queue and queue[-1][1][-1] > keys[0]:  # both of one batch: pages that were held, and those that came in
            before, known = queue.pop()
            ids, keys = np.concatenate([before, ids]), np.concatenate([known, keys])
            order = np.argsort(keys)
            ids, keys = ids[order], keys[order]
        queue.append((ids, keys))

    def _standing(self, queue: Queue) -> Queue:
        standing = [(ids[keep], keys[keep]) for ids, keys in queue for keep in [self._stands(ids, keys)]]
        return deque(one for one in standing if len(one[0]))

    def _stands(self, ids: Ids, keys: Keys) -> Bools:
        standing: Bools = self.held[ids] & (self.key[ids] == keys)
        return standing

    def _first(self, excess: int) -> Ids:
        """`_peek` in the queues."""
        found: list[Ids] = []
        for queue in self._queues:
            at = 0
            while excess > 0 and at < len(queue):
                ids, keys = queue[at]
                standing = self._stands(ids, keys)
                if not standing.all():
                    self._queued -= len(ids)
                    ids, keys = ids[standing], keys[standing]
                    self._queued += len(ids)
                    queue[at] = ids, keys
                if not len(ids) and not at:
                    queue.popleft()
                    continue
                found.append(ids[: self._until(ids, excess)])
                excess -= self.weigh(found[-1])
                at += 1
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _merge(self) -> None:
        ids = np.concatenate([late for late, _ in self._late])
        keys = np.concatenate([late for _, late in self._late])
        self._late, self._late_count, self._merged = [], 0, True
        order = np.lexsort((ids, keys))
        ids, keys = np.concatenate([ids[order], self._buffer]), np.concatenate([keys[order], self._buffer_key])
        order = np.argsort(keys, kind="stable")
        self._buffer, self._buffer_key = ids[order], keys[order]

    def _refill(self, excess: int) -> None:
        held = np.flatnonzero(self.held)
        keys = self.key[held]
        movable = keys < np.inf
        if not movable.all():
            held, keys = held[movable], keys[movable]
        most = max(2 * excess, len(held) // 8, LEAST_BUFFER)
        self._late, self._late_count, self._complete, self._merged, self._edge = [], 0, True, False, np.inf
        if most < len(held):
            edge = float(np.partition(keys, most)[most])
            low = keys <= edge  # with all that are equal to the edge, so that ties do not depend on the partition
            if not low.all():
                held, keys = held[low], keys[low]
                self._complete, self._edge = False, edge
        order = np.argsort(keys, kind="stable")
        self._buffer, self._buffer_key = held[order], keys[order]

    @property
    def bytes(self) -> int:
        queued = sum(ids.nbytes + keys.nbytes for queue in self._queues for ids, keys in queue)
        return self.held.nbytes + self.key.nbytes + self._buffer.nbytes + self._buffer_key.nbytes + queued
