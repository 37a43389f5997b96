"""The sequences that decode together, as aggregates.

Each step every member reads its context and adds one token. Nothing is touched per sequence and step: the sum of
contexts grows by the batch size, ends are in a heap keyed by the step counter, and a member starts a new KV block every
`block_tokens` steps, so members are grouped by the phase in which they do.

Cost: O(1) a step, O(log B) a join or leave.
"""

from __future__ import annotations

from heapq import heappop, heappush


class DecodeBatch:
    def __init__(self, block_tokens: int):
        self.block_tokens = block_tokens
        self.step = 0  # steps done so far, prefill-only ones included
        self.size = 0
        self.context = 0  # tokens that the next step reads, its own included, summed over the members
        self.offset: dict[int, int] = {}  # request -> cached tokens at step k, minus k
        self.blocks = 0  # blocks that hold the cached tokens of the members
        self._ends: list[int] = []  # heap of the step counts at which members end
        self._ending: dict[int, list[int]] = {}  # step count -> members that end there
        self._end: dict[int, int] = {}  # member -> its end; what the others say otherwise is stale
        self._starting: list[dict[int, None]] = [{} for _ in range(block_tokens)]  # phase -> members, in order of joining

    def join(self, request: int, cached: int, steps: int) -> None:
        """A sequence with `cached` tokens of KV decodes for `steps` more steps (at least one)."""
        offset = cached - self.step
        self.offset[request] = offset
        self.size += 1
        self.context += cached + 1
        self.blocks += -(-cached // self.block_tokens)
        end = self._end[request] = self.step + steps
        if end in self._ending:
            self._ending[end].append(request)
        else:
            self._ending[end] = [request]
            heappush(self._ends, end)
        self._starting[-offset % self.block_tokens][request] = None

    def leave(self, request: int) -> None:
        cached = self.cached(request)
        offset = self.offset.pop(request)
        self.size -= 1
        self.context -= cached + 1
        self.blocks -= -(-cached // self.block_tokens)
        del self._end[request]
        del self._starting[-offset % self.block_tokens][request]

    def cached(self, request: int) -> int:
        """Tokens of KV of a member before the next step."""
        return self.offset[request] + self.step

    def _valid(self, end: int) -> list[int]:
        return [request for request in self._ending[end] if self._end.get(request) == end]

    def steps_to_end(self) -> int:
        """Steps until the first member ends."""
        while not self._valid(self._ends[0]):
            del self._ending[heappop(self._ends)]
        return self._ends[0] - self.step

    def ending_next(self) -> list[int]:
        """Members that end with the next step."""
        end = self.step + 1
        return self._valid(end) if end in self._ending else []

    def ended(self) -> list[int]:
        """Members that end with the steps done so far; they still have to leave."""
        done: list[int] = []
        while self._ends and self._ends[0] <= self.step:
            end = heappop(self._ends)
            done += self._valid(end)
            del self._ending[end]
        return done

    def remaining(self, request: int) -> int:
        """Steps that a member still has to do."""
        return self._end[request] - self.step

    def starting(self) -> dict[int, None]:
        """Members that start a new block in the next step."""
        return self._starting[self.step % self.block_tokens]

    def new_blocks(self, steps: int) -> int:
        """Blocks that the members start in the next `steps` steps."""
        rounds, rest = divmod(steps, self.block_tokens)
        total = rounds * self.size
        for ahead in range(rest):
            total += len(self._starting[(self.step + ahead) % self.block_tokens])
        return total

    def steps_within(self, blocks: int, steps: int) -> int:
        """The largest number of steps, at most `steps`, that start no more than `blocks` blocks."""
        if blocks >= self.size * (steps // self.block_tokens + 1):
            return steps
        used = 0
        for done in range(steps):
            used += len(self._starting[(self.step + done) % self.block_tokens])
            if used > blocks:
                return done
        return steps

    def advance(self, steps: int, blocks: int) -> None:
        """`steps` steps are done; `blocks` is new_blocks(steps)."""
        self.context += self.size * steps
        self.blocks += blocks
        self.step += steps
