"""The sequences that decode together, as aggregates.

Each step every member reads its context and adds one token. Nothing is touched per sequence and step: the sum of
contexts grows by the batch size, ends are in a heap keyed by the step counter, and a member starts a new KV block every
`block_tokens` steps, so members are grouped by the phase in which they do.

With a window w (sliding-window attention) a member reads at most w tokens, and with `most_blocks` it stops starting blocks once
it has that many: what falls out of the window is reused. Each member then has two turns, known when it joins: the step from
which it reads no more, and the one from which it starts no more blocks. They are in a heap; between turns everything is linear.

Cost: O(1) a step, O(log B) a join or leave.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf


class DecodeBatch:
    def __init__(self, block_tokens: int, window: int = 0, most_blocks: int = 0):
        self.block_tokens, self.window, self.most_blocks = block_tokens, window, most_blocks
        self.step = 0  # steps done so far, but those in which the members were held
        self.done = 0  # steps done so far
        self.size = 0
        self.context = 0  # tokens that the next step reads, its own included, summed over the members
        self.windowed = 0  # the same in a layer with the window
        self.growing = 0  # members that read one token more in each step of such a layer
        self.filling = 0  # members that go on starting blocks
        self.offset: dict[int, int] = {}  # request -> cached tokens at step k, minus k
        self.blocks = 0  # blocks that hold the cached tokens of the members
        self._ends: list[int] = []  # heap of the step counts at which members end
        self._ending: dict[int, list[int]] = {}  # step count -> members that end there
        self._end: dict[int, int] = {}  # member -> its end; what the others say otherwise is stale
        self._turns: list[tuple[int, bool, int, int]] = []  # heap: step, whether it is that of the blocks, member, its join
        self._join: dict[int, int] = {}  # member -> its join; turns of another are stale
        self._joins = 0
        self._starting: list[dict[int, None]] = [{} for _ in range(block_tokens)]  # phase -> members, in order of joining

    def join(self, request: int, cached: int, steps: int) -> None:
        """A sequence with `cached` tokens of KV decodes for `steps` more steps (at least one)."""
        offset = cached - self.step
        self.offset[request] = offset
        self.size += 1
        self.context += cached + 1
        if self.window:
            self.windowed += min(cached + 1, self.window)
            if cached + 1 < self.window:
                self.growing += 1
                heappush(self._turns, (self.window - 1 - offset, False, request, self._joins + 1))
        self.blocks += self._blocks(cached)
        end = self._end[request] = self.step + steps
        if end in self._ending:
            self._ending[end].append(request)
        else:
            self._ending[end] = [request]
            heappush(self._ends, end)
        self._joins += 1
        self._join[request] = self._joins
        if self._full(cached):
            return
        self._starting[-offset % self.block_tokens][request] = None
        self.filling += 1
        if self.most_blocks:
            heappush(self._turns, (self.most_blocks * self.block_tokens - offset, True, request, self._joins))

    def leave(self, request: int) -> None:
        cached = self.cached(request)
        offset = self.offset.pop(request)
        self.size -= 1
        self.context -= cached + 1
        self.blocks -= self._blocks(cached)
        del self._end[request], self._join[request]
        if not self._full(cached):
            del self._starting[-offset % self.block_tokens][request]
            self.filling -= 1
        if self.window:
            self.windowed -= min(cached + 1, self.window)
            self.growing -= cached + 1 < self.window

    def _blocks(self, cached: int) -> int:
        blocks = -(-cached // self.block_tokens)
        return min(blocks, self.most_blocks) if self.most_blocks else blocks

    def _full(self, cached: int) -> bool:
        """A member with that many cached tokens starts no more blocks."""
        return 0 < self.most_blocks * self.block_tokens <= cached

    def cached(self, request: int) -> int:
        """Tokens of KV of a member before the next step."""
        return self.offset[request] + self.step

    def _valid(self, end: int) -> list[int]:
        # one that left and joined again may have come back to the same end
        return [request for request in dict.fromkeys(self._ending[end]) if self._end.get(request) == end]

    def steps_to_end(self) -> int:
        """Steps until the first member ends."""
        while not self._valid(self._ends[0]):
            del self._ending[heappop(self._ends)]
        return self._ends[0] - self.step

    def steps_to_turn(self) -> float:
        """Steps until the first member reads no more than before, or starts no more blocks."""
        turns = self._turns
        while turns and self._join.get(turns[0][2]) != turns[0][3]:
            heappop(turns)
        return turns[0][0] - self.step if turns else inf

    def hold(self) -> int:
        """A step of others is done while the members wait: the step that they still have to do."""
        self.done += 1
        return self.step

    def _take_turns(self) -> None:
        turns = self._turns
        while turns and turns[0][0] <= self.step:
            _, is_blocks, member, join = heappop(turns)
            if self._join.get(member) != join:
                continue
            if is_blocks:
                del self._starting[-self.offset[member] % self.block_tokens][member]
                self.filling -= 1
            else:
                self.growing -= 1

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

    def starts(self, request: int) -> int:
        """Blocks that one of those members starts in it."""
        return 1

    def new_blocks(self, steps: int) -> int:
        """Blocks that the members start in the next `steps` steps."""
        rounds, rest = divmod(steps, self.block_tokens)
        total = rounds * self.filling
        for ahead in range(rest):
            total += len(self._starting[(self.step + ahead) % self.block_tokens])
        return total

    def steps_within(self, blocks: int, steps: int) -> int:
        """The largest number of steps, at most `steps`, that start no more than `blocks` blocks."""
        if blocks >= self.filling * (steps // self.block_tokens + 1):
            return steps
        used = 0
        for done in range(steps):
            used += len(self._starting[(self.step + done) % self.block_tokens])
            if used > blocks:
                return done
        return steps

    def advance(self, steps: int, blocks: int) -> None:
        """`steps` steps are done, at most steps_to_turn(); `blocks` is new_blocks(steps)."""
        self.context += self.size * steps
        self.windowed += self.growing * steps
        self.blocks += blocks
        self.step += steps
        self.done += steps
        if self._turns:
            self._take_turns()
