"""Who enters a replica: its queue, and the room that a request needs (design 3.2).

The queue has an order (`queues.py`), and its head alone is admitted: a request enters when the blocks of its prompt
(`reserve: full`: of prompt and output) plus a watermark are unclaimed. One that can never fit is rejected on arrival, and one
that admission control refuses (`gate.py`). When requests are admitted is said by the batching rule (`batching.py`).

A request comes with nothing, with the blocks that a prefix cache has for it - they are not computed, and those that others
hold are not claimed again -, or with all its KV: it was swapped out, or another replica has computed its prompt.
"""

from __future__ import annotations

from simulator.kvcache.residency import Lru
from simulator.metrics.recorder import REJECTED
from simulator.scheduler.patience import PatientReplica
from simulator.scheduler.queues import Fair, first_of


class AdmittingReplica(PatientReplica):
    """A replica that takes requests from its queue."""

    def offer(self, request: int) -> None:
        """A request that has arrived by now joins the queue, or is rejected."""
        if not self.ever_fits(request) or not self.gate.lets_in(self, request):
            self.recorder.status[request] = REJECTED
            if self.reuse is not None:
                self.reuse.lost(request, self.clock)
            if self.ended is not None:
                self.ended(request, self.arrival[request])  # whenever that is noticed
            return
        self.queue.append(request)
        self.presence += self.clock - self.arrival[request]
        self._queued_at[request] = self.arrival[request]

    def ever_fits(self, request: int) -> bool:
        """The model has so long a context; all of it in all tiers, and in L1 what never leaves it."""
        if self.prompt[request] + self.output[request] > self.max_context:
            return False
        needs, near = self.needs(request), self.residency.l1_blocks
        return needs <= self.lasting and (needs <= near or self.geometry.near_blocks <= near)

    def asks(self) -> int:
        """Prompt tokens of the head of the queue, blocks that a prefix cache may have included; 0 if nobody waits."""
        head = self.head
        return 0 if head is None else self.prompt[head] + self._emitted.get(head, 0)

    @property
    def head(self) -> int | None:
        """Who enters next: the head of the queue, tenants over their budget on the fabric passed over."""
        if not self.queue:
            return None
        return first_of(self.queue, self.known.tenant, self.over) if self.over else self.queue[0]

    def _leaves_queue(self, head: int) -> None:
        if self.over:
            self.queue.remove(head)
        else:
            self.queue.popleft()

    def admits(self) -> bool:
        """The head of the queue can enter now."""
        head = self.head
        if head is None or not self.batching.opens(self):
            return False
        if self.prefixes is not None:
            self.prefixes.tell(0)
        return self._entry(head) is not None

    def admit(self) -> int | None:
        """Admit the head of the queue if there is a place and there are blocks for it: the request, else None."""
        request = self.head
        if request is None or self._comes_with_kv(request):
            return None  # the latter enters in `resume`
        entry = self._entry(request)
        if entry is None:
            return None
        claim, found = entry
        self._leaves_queue(request)
        self.residency.claimed += claim
        self.running[request] = self.prefilling[request] = None
        self._done[request] = self._placed[request] = 0
        if self.prefixes is not None:
            self._begin_with(request, *self.prefixes.begin(request, found, self._target[request], self.clock))
        self._waited(request)
        if isinstance(self.queue, Fair):
            self.queue.serves(request, self._target[request] - self._done[request])
        return request

    def _waited(self, request: int) -> None:
        """A request leaves the queue."""
        recorder = self.recorder
        run, waited = recorder.runs.count, self.clock - self._queued_at.pop(request)
        if self._emitted.get(request, 0):
            recorder.queue_later[request] += waited
            recorder.resumed_run[request] = run
        else:
            recorder.queue_first[request] += waited
            recorder.admit_run[request] = run
            if recorder.preemptions[request] == 0:
                recorder.admitted[request] = self.clock

    def bring(self, request: int, first_token: float) -> None:
        """Another replica has computed a request's prompt and given out its first token; its KV is here, and waits to enter."""
        self.brought.add(request)
        self._emitted[request] = 1
        self._last_token[request] = self.recorder.first_token[request] = first_token

    @property
    def resuming(self) -> bool:
        """The head of the queue comes with its KV: swapped out, or computed elsewhere."""
        return (head := self.head) is not None and self._comes_with_kv(head)

    def _comes_with_kv(self, request: int) -> bool:
        return request in self.brought or (self.swap is not None and request in self.swap.held)

    def resume(self, tokens: int) -> int:
        """Sequences at the head of the queue that come with their KV enter, as far as they fit, and decode, at most so many.
        Blocks of theirs that go to L3."""
        sent = 0
        while tokens > 0 and (request := self.head) is not None and self._comes_with_kv(request):
            entry, tokens = self._entry(request), tokens - 1
            growing = 0 if self._full else self.batch.new_blocks(1) + 1  # blocks that the next step may claim
            above = growing + self.watermark if self.running else 0
            if entry is None or self.residency.claimed + entry[0] + above > self.reachable:
                return sent
            self._leaves_queue(request)
            self.residency.claimed += entry[0]
            self.running[request] = None
            if request in self.brought:
                self.brought.remove(request)
                placed = blocks = self.geometry.blocks(self._target[request])
            else:
                assert self.swap is not None
                placed = blocks = self.swap.back(request)
                self._swaps(request, blocks)
                if self.prefixes is not None:  # others may have kept some of its blocks here
                    blocks = self.geometry.blocks(self._target[request])
                    placed = self.prefixes.come_back(request, self._target[request])
            self._placed[request] = 0  # while others make room for it
            demoted = self.residency.place(request, 0, placed, self._blocks_of_running)
            self._placed[request] = blocks
            if isinstance(self.residency, Lru):
                self.residency.reads_at_once(placed)
            self._made_room(demoted)
            sent += self.residency.far[request]
            self.recorder.placements.append((self.batch.done, placed))
            self._waited(request)
            self._waiting[request] = self._last_token.pop(request)
            self._decode_on(request)
        return sent

    def _entry(self, request: int) -> tuple[int, list[int]] | None:
        """What it takes to admit a request: blocks to claim, and cached blocks to begin with. None: it cannot enter."""
        if len(self.running) >= self.most or (needs := self.needs(request)) > self.reachable:
            return None
        tokens = self.prompt[request] + self._emitted.get(request, 0)
        if self.swap is not None and request in self.swap.held:
            tokens -= 1  # what it gave out last is not cached yet
        tokens -= request in self.brought
        self._target[request] = tokens
        claim = needs if self._full else self.geometry.blocks(tokens)
        found: list[int] = []
        if self.prefixes is not None:
            swapped = self.swap is not None and request in self.swap.held
            found = self.prefixes.left(request) if swapped else self.prefixes.found(request, tokens)
            claim -= len(found) - self.prefixes.cache.idle(found)
        if self.residency.claimed + claim + (self.watermark if self.running else 0) > self.reachable:
            return None
        return claim, found

    def _begin_with(self, request: int, placed: int, blocks: int) -> None:
        """The request begins with so many cached blocks, of which `placed` come (back) into use."""
        self._placed[request] = blocks
        self._done[request] = min(blocks * self.geometry.block_tokens, self._target[request] - 1)
        self.recorder.cached_tokens[request] += self._done[request]
        if placed:
            self.residency.place(request, 0, placed, self._blocks_of_running)
            self.recorder.placements.append((self.batch.done, placed))
