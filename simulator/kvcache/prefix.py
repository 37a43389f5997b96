"""The prefix cache of one replica: blocks of the paged KV cache that keep what they hold until they are needed.

The rule of vLLM V1's block pool, block for block:

    identity    the id of a full block stands for all tokens up to its end (a chained hash): equal id, equal prefix
    look-up     the leading run of a sequence's ids that are cached; never the whole sequence, since at least one token must
                be computed to get the next one: at most (tokens - 1) // block
    sharing     a block has as many users as sequences hold it; one with no user is free, and keeps its content
    allocation  the block that became free first is taken, its content is forgotten (least recently used)
    release     a sequence frees its blocks from the last to the first, so that heads of prefixes outlive their tails
    caching     a block is cached in the step that fills it: who comes later in the same step can already use it

Two sequences that compute the same block at the same time hold a copy each, and both copies are cached. The one that was
cached first is found; of two that decode the same tokens side by side that may be either.

With `partial` the last, partial block of a prompt is reused as well where it has an id (not vLLM's rule: that of a
cache that counts whole prompts): by a sequence with just this prompt, if nobody else holds it, since its answer is
written behind it. At least one token is computed all the same; its block is found.

`beside` says how many blocks a sequence holds besides those of its tokens (`Geometry.beside`): they have no ids, and
are freed before the others, like a partial block.

`forgotten` and `cached` are told the ids that leave this cache and come into it, for tiers below it (`parked.py`).
Not modelled: hash collisions, ids that depend on anything but the tokens (adapters, images).
Cost: O(1) a block allocated, found or freed. Blocks that were never used are a count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from math import inf


class PrefixCache:
    def __init__(
        self, capacity: int, block_tokens: int, partial: bool = False, beside: Callable[[int], int] = lambda tokens: 0
    ):  # fmt: skip
        self.capacity, self.block_tokens, self.partial, self._beside = capacity, block_tokens, partial, beside
        self.forgotten: Callable[[int], None] | None = None  # told of each id of which no copy is left
        self.cached: Callable[[int], None] | None = None  # told of each id that comes in
        self._unused = capacity  # blocks that never held anything: taken before all others
        self._blank: list[int] = []  # blocks whose content was let go: taken next
        # the others without users, since when (s), the one to take next first; a dict would look for it among those that left
        self._free: OrderedDict[int, float] = OrderedDict()
        self._users: dict[int, int] = {}  # block -> sequences that hold it
        self._id: dict[int, int] = {}  # cached block -> its id
        self._cached: dict[int, dict[int, None]] = {}  # id -> blocks that hold it, the oldest first
        self._held: dict[int, list[int]] = {}  # sequence -> its blocks
        self._more: dict[int, list[int]] = {}  # sequence -> those that it has besides
        self._full: dict[int, int] = {}  # sequence -> how many of them were full when it was last looked at
        self._reading: dict[int, list[int]] = {}  # decoding sequence -> its blocks when it began to
        self._readers: dict[int, int] = {}  # block -> decoding sequences that read it
        self.common, self.common_reads = 0, 0  # blocks that several read, and their readers in all

    def blocks(self, tokens: int) -> int:
        """That a sequence of so many tokens holds."""
        return -(-tokens // self.block_tokens) + self._beside(tokens)

    @property
    def used(self) -> int:
        """Blocks that sequences hold, each counted once."""
        return len(self._users)

    def found(self, ids: Sequence[int], tokens: int) -> list[int]:
        """The blocks that a sequence of `tokens` tokens need not compute."""
        blocks = []
        for index in range(self.most(ids, tokens)):
            copies = self._cached.get(ids[index])
            if copies is None:
                break
            block = next(iter(copies))
            if index >= tokens // self.block_tokens and block in self._users:
                break  # partial, and somebody writes behind it
            blocks.append(block)
        return blocks

    def most(self, ids: Sequence[int], tokens: int) -> int:
        """How many blocks of a sequence can be found at most."""
        return min(len(ids), -(-tokens // self.block_tokens) if self.partial else (tokens - 1) // self.block_tokens)

    @property
    def empty(self) -> int:
        """Blocks that can be taken without forgetting anything."""
        return self._unused + len(self._blank)

    def holds(self, identity: int) -> bool:
        return identity in self._cached

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
        self._held[sequence], self._more[sequence] = list(blocks), []
        self._full[sequence] = len(blocks)

    def write(self, sequence: int, tokens: int, ids: Sequence[int], whole: bool = False) -> None:
        """The sequence has `tokens` tokens from now on: it is given the blocks it lacks, and full ones are cached; `whole`:
        these are all tokens that its ids stand for, so a partial block has one too."""
        held = self._held[sequence]
        for _ in range(-(-tokens // self.block_tokens) - len(held)):
            held.append(self._take())
        more = self._more[sequence]
        more += [self._take() for _ in range(self._beside(tokens) - len(more))]
        first, full = self._full[sequence], tokens // self.block_tokens
        if whole and self.partial:
            full = -(-tokens // self.block_tokens)
        for index in range(first, min(full, len(ids))):
            self._name(held[index], ids[index])
        self._full[sequence] = max(first, full)

    def bring(self, sequence: int, ids: Sequence[int]) -> None:
        """A sequence that has begun is given the next blocks of its prompt from elsewhere: they have these ids."""
        held = self._held[sequence]
        for identity in ids:
            held.append(self._take())
            self._name(held[-1], identity)
        self._full[sequence] = len(held)

    def _name(self, block: int, identity: int) -> None:
        self._id[block] = identity
        copies = self._cached.get(identity)
        if copies is None:
            self._cached[identity] = {block: None}
            if self.cached is not None:
                self.cached(identity)
        else:
            copies[block] = None

    def _take(self) -> int:
        if self._unused:
            block = self.capacity - self._unused
            self._unused -= 1
        elif self._blank:
            block = self._blank.pop()
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
                if self.forgotten is not None:
                    self.forgotten(identity)

    @property
    def idle_since(self) -> float:
        """When the block that will be taken next lost its last user, s; inf: none has content and no user."""
        return next(iter(self._free.values()), inf)

    def let_go(self, now: float, after: float) -> None:
        """Forget the content of the blocks that have had no user for `after` s, or longer."""
        while self.idle_since + after <= now:  # the very sum that says when to look
            block = next(iter(self._free))
            del self._free[block]
            self._forget(block)
            self._blank.append(block)

    def shared(self, sequence: int) -> dict[int, int]:
        """Of the blocks of a sequence those that others hold as well: place in the sequence -> id."""
        return {at: self._id[block] for at, block in enumerate(self._held[sequence]) if self._users[block] > 1}

    def copy(self, identity: int) -> int:
        """The oldest block that holds this id."""
        return next(iter(self._cached[identity]))

    def restore(self, sequence: int, tokens: int, ids: Sequence[int], there: Mapping[int, int]) -> None:
        """A sequence that had so many tokens comes back with all of them: these blocks (by their place) are still here, the
        others are written from elsewhere."""
        self.begin(sequence, list(there.values()))
        self._held[sequence] = [
            there[at] if at in there else self._take() for at in range(-(-tokens // self.block_tokens))
        ]  # fmt: skip
        self._more[sequence] = [self._take() for _ in range(self._beside(tokens))]
        self._full[sequence] = full = min(tokens // self.block_tokens, len(ids))
        for at in range(full):
            if at not in there:
                self._name(self._held[sequence][at], ids[at])

    def release(self, sequence: int, now: float = 0.0) -> int:
        """A sequence ends or is preempted at `now` (s). Returns how many of its blocks nobody else holds."""
        del self._full[sequence]
        self._decoded(sequence)
        freed = 0
        for block in reversed(self._held.pop(sequence) + self._more.pop(sequence)):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._free[block] = now
                freed += 1
        return freed

    def decodes(self, sequence: int) -> None:
        """The sequence decodes from now on; what it adds, nobody else reads."""
        blocks = self._reading[sequence] = list(self._held[sequence])
        for block in blocks:
            readers = self._readers[block] = self._readers.get(block, 0) + 1
            if readers > 1:
                self.common += readers == 2
                self.common_reads += 2 if readers == 2 else 1

    def _decoded(self, sequence: int) -> None:
        """It does so no more."""
        for block in self._reading.pop(sequence, ()):
            readers = self._readers[block] = self._readers[block] - 1
            if readers:
                self.common -= readers == 1
                self.common_reads -= 2 if readers == 1 else 1
            else:
                del self._readers[block]
