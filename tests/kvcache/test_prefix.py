"""The prefix cache block by block, against what vLLM's block pool does, worked out by hand; and against a brute-force twin."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.kvcache.prefix import PrefixCache
from simulator.workload.prefix_ids import block_ids

BLOCK = 4


def serve(cache: PrefixCache, sequence: int, ids: list[int], tokens: int) -> int:
    """A sequence enters, is computed and stays. Returns the blocks that it found."""
    found = cache.found(ids, tokens)
    cache.begin(sequence, found)
    cache.write(sequence, tokens, ids)
    return len(found)


def test_the_last_token_is_always_computed() -> None:
    """Two full blocks cached: the same 8 tokens find one of them, 9 tokens both.

    Would catch: a hit that covers the whole prompt, so that no token is left to compute and no first token comes out.
    """
    cache = PrefixCache(10, BLOCK)
    assert serve(cache, 0, [1, 2], 8) == 0
    assert len(cache.found([1, 2], 8)) == 1
    assert len(cache.found([1, 2], 9)) == 2
    assert len(cache.found([1, 2], 4)) == 0


def test_only_the_leading_run_counts() -> None:
    """Would catch: a block found behind one that is missing, whose tokens before it would never be computed."""
    cache = PrefixCache(10, BLOCK)
    serve(cache, 0, [1, 2, 3], 12)
    assert len(cache.found([1, 9, 3], 13)) == 1
    assert len(cache.found([9, 2, 3], 13)) == 0


def test_partial_blocks_are_not_cached() -> None:
    """7 tokens with ids of two blocks: one is full.

    Would catch: the partial last block shared, which another sequence goes on to write.
    """
    cache = PrefixCache(10, BLOCK)
    serve(cache, 0, [1, 2], 7)
    assert len(cache.found([1, 2], 20)) == 1
    cache.write(0, 8, [1, 2])
    assert len(cache.found([1, 2], 20)) == 2


def test_shared_blocks_are_held_once_and_freed_by_the_last() -> None:
    """A holds 3 blocks, B shares 2 of them and adds one: 4 in use; A's end frees its own one only.

    Would catch: blocks counted once for each user, freed under a sequence that still reads them.
    """
    cache = PrefixCache(10, BLOCK)
    serve(cache, 0, [1, 2], 10)
    assert cache.idle(cache.found([1, 2], 9)) == 0
    serve(cache, 1, [1, 2], 9)
    assert cache.used == 4
    assert cache.release(0) == 1
    assert cache.used == 3
    assert cache.release(1) == 3
    assert cache.used == 0
    assert cache.idle(cache.found([1, 2], 9)) == 2


def test_tails_are_forgotten_before_heads() -> None:
    """4 blocks. A (3 blocks) ends; C needs 2: the one never used, then A's last block. A's head is still there.

    Would catch: blocks freed from first to last, so that the head goes first and the rest can never be found again.
    """
    cache = PrefixCache(4, BLOCK)
    serve(cache, 0, [1, 2, 3], 12)
    cache.release(0)
    serve(cache, 1, [7, 8], 8)
    assert len(cache.found([1, 2, 3], 13)) == 2


def test_least_recently_freed_goes_first_and_use_renews() -> None:
    """3 blocks: A, B, C one each, freed in this order; A is used again and freed. Two new blocks push out B and C.

    Would catch: first in, first out by the time of writing.
    """
    cache = PrefixCache(3, BLOCK)
    for sequence, identity in enumerate((1, 2, 3)):
        serve(cache, sequence, [identity], 4)
    for sequence in range(3):
        cache.release(sequence)
    cache.begin(3, cache.found([1], 5))
    cache.release(3)
    serve(cache, 4, [8, 9], 8)
    assert [len(cache.found([identity], 5)) for identity in (1, 2, 3)] == [1, 0, 0]


def test_copies_of_one_block() -> None:
    """Two sequences compute the same block side by side: two blocks; it is found until both copies are overwritten.

    Would catch: the second copy hiding the first, or forgetting one copy forgetting the id.
    """
    cache = PrefixCache(2, BLOCK)
    cache.begin(0, [])
    cache.begin(1, [])
    cache.write(0, 4, [1])
    cache.write(1, 4, [1])
    assert cache.used == 2
    cache.release(0)
    cache.release(1)
    serve(cache, 2, [5], 4)
    assert len(cache.found([1], 5)) == 1
    serve(cache, 3, [6], 4)
    assert len(cache.found([1], 5)) == 0


def test_ids_of_larger_blocks_are_split() -> None:
    """Ids of 12 tokens over blocks of 4: three parts an id; 19 tokens have four full blocks.

    Would catch: parts of different ids that collide, a partial block with an id.
    """
    ids = block_ids([5, 6], 12, 4, 19)
    assert ids == [15, 16, 17, 18]
    assert block_ids([5, 7], 12, 4, 24)[:3] == ids[:3]
    assert block_ids([5, 6], 4, 4, 8) == [5, 6]
    assert block_ids([5], 4, 4, 11) == [5]


def test_ids_of_larger_blocks():
    """A block of 12 tokens has the id of its last 4: that stands for all before it. By hand.

    Would catch: a block that is known by its first part (two prompts that differ later would be one), a partial one that is
    taken for a full one.
    """
    assert block_ids([5, 6, 7, 8, 9, 10, 11], 4, 12, 28) == [7, 10]
    assert block_ids([5, 6, 7, 8, 9, 10, 11], 4, 12, 23) == [7]
    assert block_ids([5, 6, 7, 8], 4, 12, 14, partial=True) == [7, 8]
    assert block_ids([5, 6, 7], 4, 12, 14, partial=True) == [7]


class Twin:
    """The same rule by brute force: a list of blocks, each with its content and users, and a list of the free ones."""

    def __init__(self, capacity: int):
        self.content: list[int | None] = [None] * capacity
        self.users: list[set[int]] = [set() for _ in range(capacity)]
        self.free = list(range(capacity))
        self.held: dict[int, list[int]] = {}

    def found(self, ids: list[int], tokens: int) -> int:
        run = 0
        while run < min(len(ids), (tokens - 1) // BLOCK) and ids[run] in self.content:
            run += 1
        return run

    def enter(self, sequence: int, ids: list[int], tokens: int, order: list[int]) -> None:
        blocks = []
        for identity in ids[: self.found(ids, tokens)]:
            blocks.append(min((b for b, c in enumerate(self.content) if c == identity), key=order.index))
        for block in blocks:
            self.users[block].add(sequence)
            if block in self.free:
                self.free.remove(block)
        while len(blocks) < -(-tokens // BLOCK):
            block = self.free.pop(0)
            self.content[block] = None
            self.users[block] = {sequence}
            if block in order:
                order.remove(block)
            blocks.append(block)
        for index in range(min(len(ids), tokens // BLOCK)):
            if self.content[blocks[index]] is None:
                self.content[blocks[index]] = ids[index]
                order.append(blocks[index])
        self.held[sequence] = blocks

    def leave(self, sequence: int) -> None:
        for block in reversed(self.held.pop(sequence)):
            self.users[block].remove(sequence)
            if not self.users[block]:
                self.free.append(block)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 22), st.booleans()), max_size=40), st.integers(6, 20))
def test_the_same_as_by_brute_force(events: list[tuple[int, int, bool]], capacity: int) -> None:
    """Prompts of four families that share prefixes come, stay and go in any order.

    Would catch: a free list out of order, users miscounted, an id that outlives its block.
    """
    cache, twin, order, inside = PrefixCache(capacity, BLOCK), Twin(capacity), [], []
    for number, (family, tokens, leave_first) in enumerate(events):
        ids = [100 * (family if index > 1 else family // 2) + index for index in range(tokens // BLOCK)]
        found = cache.found(ids, tokens)
        assert len(found) == twin.found(ids, tokens)
        while inside and (leave_first or -(-tokens // BLOCK) - len(found) + cache.idle(found) > capacity - cache.used):
            gone = inside.pop(0)
            cache.release(gone)
            twin.leave(gone)
            leave_first = False
            found = cache.found(ids, tokens)
        if -(-tokens // BLOCK) > capacity:
            continue
        cache.begin(number, found)
        cache.write(number, tokens, ids)
        twin.enter(number, ids, tokens, order)
        inside.append(number)
        assert cache.used == sum(bool(users) for users in twin.users)
