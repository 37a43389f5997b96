"""Who runs in a step: batching rules. A rule is a class with `opens` and `pieces`, and one line in `BATCHINGS`.

Every sequence that has its prompt decodes one token in each step but where the rule holds it back (`together`); a rule says
which prompts get the rest of the token budget, and when requests are admitted from the head of the queue.

    continuous  vLLM V1: prompts in work go on, in the order of admission; then, while there is budget, the head of the queue
                is admitted and gets its share. A prompt's piece is at most `prefill_chunk` tokens (chunked prefill); its last
                piece emits its first token. Nobody is admitted in a step that had to preempt.
    static      a batch is formed from what waits when the last one is done; all its prompts are computed, then it decodes

vLLM V1 goes through its running sequences in the order of admission, decodes and prompts alike. That is the order here too
as long as at most one prompt is unfinished between steps, which is so unless `prefill_chunk` is below the token budget; then
decodes come first here, and none is left out of a step.
"""

from __future__ import annotations

from typing import Protocol

Pieces = list[tuple[int, int]]  # (request, prompt tokens)


class Replica(Protocol):
    """What a rule sees and does."""

    @property
    def prefilling(self) -> dict[int, None]:
        """Admitted requests with prompt tokens to compute, in the order of admission."""

    @property
    def idle(self) -> bool:
        """No request is admitted."""

    def admit(self) -> int | None:
        """Admit the head of the queue if there is a place and there are blocks for it: the request, else None."""

    def give(self, request: int, budget: int) -> int:
        """Tokens of its prompt that an admitted request computes in this step, at most `budget` and `prefill_chunk`."""


class Batching(Protocol):
    together: bool  # sequences wait with their first decode until all prompts of the batch are computed

    def opens(self, replica: Replica) -> bool:
        """Whether requests are admitted now at all."""

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        """The prompt pieces of this step, at most `budget` tokens; admits what the rule lets in."""


def in_work(replica: Replica, budget: int) -> tuple[Pieces, int]:
    """Shares of the prompts in work, first come first served, and the budget that is left."""
    pieces: Pieces = []
    for request in replica.prefilling:
        if budget <= 0:
            break
        take = replica.give(request, budget)
        pieces.append((request, take))
        budget -= take
    return pieces, budget


class Continuous:
    together = False

    def opens(self, replica: Replica) -> bool:
        return True

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        pieces, budget = in_work(replica, budget)
        while budget > 0 and not preempted and (request := replica.admit()) is not None:
            take = replica.give(request, budget)
            pieces.append((request, take))
            budget -= take
        return pieces


class Static:
    together = True

    def opens(self, replica: Replica) -> bool:
        return replica.idle

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        if replica.idle and not preempted:
            while replica.admit() is not None:
                pass
        return in_work(replica, budget)[0]


BATCHINGS: dict[str, type[Continuous] | type[Static]] = {"continuous": Continuous, "static": Static}
