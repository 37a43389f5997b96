"""The prefix cache of one replica: blocks of the paged KV cache that keep what they hold until they are needed.

The rule of vLLM V1's block pool, block for block:

    identity    the id of a full block stands for all tokens up to its end (a chained hash): equal id, equal prefix
    look-up     the leading run of a sequence's ids that are cached; never the whole sequence, since at least one token must
                be computed to get the next one: at most (tokens - 1) // block
    sharing     a block has as many users as sequences hold it; one with no user is free, and keeps its content
    allocation  the block that became free first is taken, its content is forgotten (least recently used)
    release     a sequence frees its blocks from the last to the first, so that heads of prefixes outlive their tails
    caching     a block is cached in the step that fills it: who comes later in the same step can already use it

Two sequences that compute the same block at the same time hold a copy each, and both copies are cached.
Not modelled: tiers below HBM, hash collisions, ids that depend on anything but the tokens (adapters, images).
Cost: O(1) a block allocated, found or freed. Blocks that were never used are a count.
"""

from __future__ import annotations

from collections.abc import Sequence


class PrefixCache:
    def __init__(self, capacity: int, block_tokens: int):
        self.capacity, self.block_tokens = capacity, block_tokens
        self._unused = capacity  # blocks that never held anything: taken before all others
        self._free: dict[int, None] = {}  # the others without users, the one to take next first
        self._users: dict[int, int] = {}  # block -> sequences that hold it
        self._id: dict[int, int] = {}  # cached block -> its id
        self._cached: dict[int, dict[int, None]] = {}  # id -> blocks that hold it, the oldest first
        self._held: dict[int, list[int]] = {}  # sequence -> its blocks
        self._full: dict[int, int] = {}  # sequence -> how many of them were full when it was last looked at

    @property
    def used(self) -> int:
        """Blocks that sequences hold, each counted once."""
        return len(self._users)

    def found(self, ids: Sequence[int], tokens: int) -> list[int]:
        """The blocks that a sequence of `tokens` tokens need not compute."""
        blocks = []
        for index in range(min(len(ids), (tokens - 1) // self.block_tokens)):
            copies = self._cached.get(ids[index])
            if copies is None:
                break
            blocks.append(next(iter(copies)))
        return blocks

    def idle(self, blocks: Sequence[int]) -> int:
        """How many of these blocks nobody holds: they count as free until they are taken."""
        return sum(block not in self._users for block in blocks)

    def begin(self, sequence: int, blocks: Sequence[int]) -> None:
        """A sequence enters with what was found for it."""
        for block in blocks:
            users = self._users.get(block, 0)
            if not users:
                del self._free[block]
            self._users[block] = users + 1
        self._held[sequence] = list(blocks)
        self._full[sequence] = len(blocks)

    def write(self, sequence: int, tokens: int, ids: Sequence[int]) -> None:
        """The sequence has `tokens` tokens from now on: it is given the blocks it lacks, and full ones are cached."""
        held = self._held[sequence]
        for _ in range(-(-tokens // self.block_tokens) - len(held)):
            held.append(self._take())
        first, full = self._full[sequence], tokens // self.block_tokens
        for index in range(first, min(full, len(ids))):
            self._id[held[index]] = ids[index]
            self._cached.setdefault(ids[index], {})[held[index]] = None
        self._full[sequence] = max(first, full)

    def _take(self) -> int:
        if self._unused:
            block = self.capacity - self._unused
            self._unused -= 1
        else:
            block = next(iter(self._free))  # StopIteration: more blocks claimed than there are, a bug of the caller
            del self._free[block]
            self._forget(block)
        self._users[block] = 1
        return block

    def _forget(self, block: int) -> None:
        identity = self._id.pop(block, None)
        if identity is not None:
            copies = self._cached[identity]
            del copies[block]
            if not copies:
                del self._cached[identity]

    def release(self, sequence: int) -> int:
        """A sequence ends or is preempted. Returns how many of its blocks nobody else holds."""
        del self._full[sequence]
        freed = 0
        for block in reversed(self._held.pop(sequence)):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._free[block] = None
                freed += 1
        return freed


def block_ids(ids: Sequence[int], id_tokens: int, block_tokens: int, tokens: int) -> list[int]:
    """Ids of the full blocks of `block_tokens` tokens, from ids that stand for `id_tokens` tokens each (a multiple).

    The parts of one id are numbered; they are equal exactly where the ids are. `tokens` are what the ids stand for in all:
    the last id may be that of a partial block.
    """
    parts = id_tokens // block_tokens
    full = min(tokens // block_tokens, len(ids) * parts)
    return [ids[index // parts] * parts + index % parts for index in range(full)]
