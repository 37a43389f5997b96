"""Who runs in a step: batching rules. A rule is a class with `opens` and `pieces`, and one line in `BATCHINGS`.

Every sequence that has its prompt decodes one token in each step but where the rule holds it back (`together`); a rule says
which prompts get the rest of the token budget, and when requests are admitted from the head of the queue.

    continuous  vLLM V1: prompts in work go on, in the order of admission; then, while there is budget, the head of the queue
                is admitted and gets its share. A prompt's piece is at most `prefill_chunk` tokens (chunked prefill); its last
                piece emits its first token. Nobody is admitted in a step that had to preempt.
    decode_first  Sarathi-Serve: decodes, then prompts in work, then new requests. Differs from `continuous` in one point: a
                step that had to preempt still admits from the queue
    prefill_first  vLLM V0 without chunked prefill: while the head of the queue can enter, a step computes prompts only, whole
                ones as many as fit the budget, and all decodes wait; else all decode. A prompt longer than the budget is
                computed alone, in pieces. In a step in which somebody is swapped in, all decode
    static      a batch is formed from what waits when the last one is done; all its prompts are computed, then it decodes

vLLM V1 goes through its running sequences in the order of admission, decodes and prompts alike, until the budget is spent. It
comes to the same as decodes first, whatever `prefill_chunk` is: a sequence asks for 1 token or for a piece, which never grows,
and is admitted only where those before it left budget. So all but the newest always get what they ask for, the newest at
least one token, and no decode is ever left out (`tests/scheduler/test_vllm_rule.py` compares the two step by step).
"""

from __future__ import annotations

from collections.abc import Callable
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

    def waits(self, request: int) -> bool:
        """A prompt in work gets no piece now."""

    def admit(self) -> int | None:
        """Admit the head of the queue if there is a place and there are blocks for it: the request, else None."""

    def asks(self) -> int:
        """Prompt tokens of the head of the queue, blocks that a prefix cache may have included; 0 if nobody waits."""

    def give(self, request: int, budget: int) -> int:
        """Tokens of its prompt that an admitted request computes in this step, at most `budget` and `prefill_chunk`."""


class Batching(Protocol):
    together: bool  # sequences wait with their first decode until all prompts of the batch are computed
    apart: bool  # a step has either prompts or decodes

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
        if replica.waits(request):
            continue
        take = replica.give(request, budget)
        pieces.append((request, take))
        budget -= take
    return pieces, budget


class Continuous:
    together = apart = False
    after_preemption = False  # a step that had to preempt admits

    def opens(self, replica: Replica) -> bool:
        return True

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        pieces, budget = in_work(replica, budget)
        while budget > 0 and (self.after_preemption or not preempted) and (request := replica.admit()) is not None:
            take = replica.give(request, budget)
            pieces.append((request, take))
            budget -= take
        return pieces


class DecodeFirst(Continuous):
    after_preemption = True


class PrefillFirst:
    together, apart = False, True

    def opens(self, replica: Replica) -> bool:
        return True

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        pieces, budget = in_work(replica, budget)
        while budget > 0 and (replica.asks() <= budget or not pieces) and (request := replica.admit()) is not None:
            take = replica.give(request, budget)
            pieces.append((request, take))
            budget -= take
        return pieces


class Static:
    together, apart = True, False

    def opens(self, replica: Replica) -> bool:
        return replica.idle

    def pieces(self, replica: Replica, budget: int, preempted: bool) -> Pieces:
        if replica.idle and not preempted:
            while replica.admit() is not None:
                pass
        return in_work(replica, budget)[0]


BATCHINGS: dict[str, Callable[[], Batching]] = {
    "continuous": Continuous,
    "decode_first": DecodeFirst,
    "prefill_first": PrefillFirst,
    "static": Static,
}
