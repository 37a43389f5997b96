"""Tenants over their budget on the fabric (`tenants.py`): what is theirs and would read far memory waits, and nobody for it.

Before each step: decoding sequences that read far blocks leave the batch and sit out, with their blocks; they come back when
the bucket allows it, and their next token ends a gap that began with the last one. Prompts in work that read far blocks get no
piece; requests in the queue are passed over. Sequences whose blocks are all in HBM go on. A step that has begun is not cut:
what it reads is charged whole, and paid back before the next one.
Where all that runs here waits, so does the replica: until a bucket is paid back or somebody arrives.

A sequence that sits out keeps its place in the batch and its memory, as vLLM's does when a step skips it; what bounds the
memory of a tenant is admission.
Not modelled: pages by identity (refused), write-back that waits (it makes room for others).
"""

from __future__ import annotations

from simulator.kvcache.residency import Lru
from simulator.scheduler.replica import Replica


class PatientReplica(Replica):
    """A replica that heeds the budgets of tenants."""

    def heed(self) -> None:
        """Who sits out of the next step, as of now."""
        tenants = self.tenants
        if tenants is None or not tenants.limited or (self.far is None and self.swap is None):
            return
        self.over = tenants.over()
        for request in [one for one in self.sitting if not self.waits(one)]:
            self._come_back(request)
        if self.over:
            for request in [one for one in self.batch.offset if self.waits(one)]:
                self._sit_out(request)
        tenants.wait(self, self._waiting_tenants())

    def _waiting_tenants(self) -> set[int]:
        """Those of which something waits here."""
        found = {self.known.tenant[one] for one in (*self.sitting, *filter(self.waits, self.prefilling))}
        for request in self.queue if self.over - found else ():
            if self.over <= found:
                break
            found.update(self.over & {self.known.tenant[request]})
        return found

    def waits(self, request: int) -> bool:
        """A running request of a tenant over its budget that reads far memory."""
        if not self.over or self.known.tenant[request] not in self.over:
            return False
        if isinstance(self.residency, Lru):
            return self.residency.near_room() < 0
        fetches = self.reuse is not None and self.reuse.fetching.get(request, 0) > 0
        return fetches or self.residency.far.get(request, 0) > 0

    def _sit_out(self, request: int) -> None:
        """A decoding sequence leaves the batch and keeps its blocks."""
        batch, recorder = self.batch, self.recorder
        cached, blocks = batch.cached(request), self._blocks_of(request)
        decoded = batch.step - recorder.decode_step[request]
        self.sitting[request] = self._waiting.pop(request, self.clock)
        self._emitted[request] = self.output[request] - batch.remaining(request)
        self._target[request] = cached
        self._far_decoding -= self.residency.far[request]
        if self.prefixes is not None:
            self.prefixes.write(request, cached)
        batch.leave(request)
        self.readers.change([request])
        recorder.residence_ends(request, batch.done, self._placed[request], decoded, again=True)
        recorder.placements.append((batch.done, blocks))  # and stays where it is
        self._placed[request] = blocks

    def _come_back(self, request: int) -> None:
        self._waiting[request] = self.sitting.pop(request)
        if isinstance(self.residency, Lru):
            self.residency.returns(self._placed[request] - 1)
        self._decode_on(request)
