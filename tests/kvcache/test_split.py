"""Split placement: equal shares of L1, exclusive tiers, the tail of every sequence near."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simulator.kvcache.residency import Split

LAYERS = 3


class Replay:
    """Split as a replica uses it: blocks are claimed at admission, so that what is placed always has a place."""

    def __init__(self, l1: int, l3: int):
        self.split = Split(l1, l3, LAYERS)
        self.blocks: dict[int, int] = {}
        self.target: dict[int, int] = {}
        self.admitted = 0

    def admit(self, prompt: int) -> int | None:
        if self.split.claimed + prompt > self.split.capacity():
            return None
        self.split.claimed += prompt
        self.admitted += 1
        self.blocks[self.admitted], self.target[self.admitted] = 0, prompt
        return self.admitted

    def place(self, request: int, blocks: int) -> int:
        demoted = self.split.place(request, self.blocks[request], blocks, lambda: list(self.blocks.items()))
        self.blocks[request] += blocks
        return demoted

    def near(self, request: int) -> int:
        return self.blocks[request] - self.split.far[request]


class SplitMachine(RuleBasedStateMachine):
    """Random admissions, prompt pieces, growth and ends against the plainest model: a block is near or far, once."""

    def __init__(self) -> None:
        super().__init__()
        self.replay = Replay(l1=40, l3=60)
        self.homed = 0

    @rule(prompt=st.integers(1, 60))
    def admit(self, prompt: int) -> None:
        self.replay.admit(prompt)

    @precondition(lambda self: any(self.replay.blocks[r] < self.replay.target[r] for r in self.replay.blocks))
    @rule(data=st.data())
    def place(self, data: st.DataObject) -> None:
        replay, split = self.replay, self.replay.split
        open_prompts = [r for r in replay.blocks if replay.blocks[r] < replay.target[r]]
        request = data.draw(st.sampled_from(open_prompts))
        blocks = data.draw(st.integers(1, replay.target[request] - replay.blocks[request]))
        far = {other: split.far.get(other, 0) for other in replay.blocks}
        room, stored = split.near_room(), split.l3_used
        demoted = replay.place(request, blocks)
        sequences = len(split.far)
        share = min(1.0, (split.l1_blocks - sequences) / max(1, split.claimed - sequences))
        # nothing goes to L3 that had room in L1, and nothing else moves
        assert split.l3_used - stored == max(0, blocks - room)
        assert (
            sum(split.far[other] - far[other] for other in replay.blocks if other != request and other in split.far) == demoted
        )
        for other in split.far:
            if other != request and split.far[other] > far[other]:  # nobody gives more than what is above its share
                assert replay.near(other) >= 1 + int(share * (replay.blocks[other] - 1))
        if room < blocks:
            assert replay.near(request) >= 1 + int(share * (replay.blocks[request] - 1))
        self.homed += split.l3_used - stored

    @precondition(lambda self: any(self.replay.blocks[r] == self.replay.target[r] for r in self.replay.blocks))
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        replay, split = self.replay, self.replay.split
        if split.claimed >= split.capacity():
            return
        request = data.draw(st.sampled_from([r for r in replay.blocks if replay.blocks[r] == replay.target[r]]))
        near, full = replay.near(request), split.near_room() == 0
        split.claimed += 1
        assert split.grow(request) == int(full)
        replay.blocks[request] += 1
        replay.target[request] += 1
        assert replay.near(request) == near + (not full)  # the new block takes the place of its predecessor
        self.homed += int(full)

    @precondition(lambda self: bool(self.replay.split.far))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        replay = self.replay
        request = data.draw(st.sampled_from(sorted(replay.split.far)))
        replay.split.release(request, replay.blocks.pop(request))
        replay.split.claimed -= replay.target.pop(request)

    @invariant()
    def conserved(self) -> None:
        replay, split = self.replay, self.replay.split
        assert split.l1_used + split.l3_used == sum(replay.blocks.values())
        assert split.l3_used == sum(split.far.values())
        assert 0 <= split.l1_used <= split.l1_blocks and 0 <= split.l3_used <= split.l3_blocks
        assert all(0 <= far <= replay.blocks[request] for request, far in split.far.items())
        assert split.homed == self.homed * LAYERS
        assert split.settled() == (split.l3_used == 0)


SplitMachine.TestCase.settings = settings(deadline=None, derandomize=True, max_examples=150, stateful_step_count=40)
TestSplitMachine = SplitMachine.TestCase
TestSplitMachine.__doc__ = "Would catch: a block in both tiers or in none, a tier over its capacity, a share taken twice."


@pytest.mark.parametrize(("l1", "batch", "prompt"), [(100, 7, 50), (64, 8, 63), (333, 10, 90), (50, 25, 40)])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_batch_of_equals_has_equal_shares(l1: int, batch: int, prompt: int, chunk: int) -> None:
    """All claimed, then placed one after the other in pieces: each has l1 / batch blocks near, rounded down.

    What rounding leaves, less than a block a sequence, stays with those who had it.
    Would catch: the last ones pushed out, the first ones left with all they had, pieces that take a share each.
    """
    replay = Replay(l1, 10_000)
    requests = [replay.admit(prompt) for _ in range(batch)]
    for request in requests:
        assert request is not None
        while replay.blocks[request] < prompt:
            replay.place(request, min(chunk, prompt - replay.blocks[request]))
    shares = [replay.near(request) for request in requests if request is not None]
    assert sum(shares) == l1  # L1 is full
    assert min(shares) >= int(l1 / batch)
    assert max(shares) - min(shares) <= l1 % batch


def test_shares_follow_the_length() -> None:
    """Prompts of 30 and 90 blocks in 60 blocks of L1 keep 16 and 44: the newest block, and the same share of the others,
    58 / 118, rounded down; the short one gives up no more than the long one is due.

    Would catch: the same number of blocks for all.
    """
    replay = Replay(60, 1000)
    short, long = replay.admit(30), replay.admit(90)
    assert short is not None and long is not None
    replay.place(short, 30)
    assert replay.near(short) == 30
    assert replay.place(long, 90) == 14
    assert (replay.near(short), replay.near(long)) == (16, 44)


def test_growth_sends_one_block_to_l3_and_promotes_nothing() -> None:
    """L1 full: every new block costs one far block; when a sequence ends, its room is used by new blocks only.

    Would catch: a promotion (a dense scan promotes nothing), a demotion although there is room.
    """
    replay = Replay(10, 100)
    first, second = replay.admit(10), replay.admit(10)
    assert first is not None and second is not None
    replay.place(first, 10)
    replay.place(second, 10)
    assert (replay.near(first), replay.near(second)) == (5, 5)
    assert replay.split.grow(first) == 1
    replay.blocks[first] += 1
    assert (replay.near(first), replay.split.far[first]) == (5, 6)
    replay.split.release(second, replay.blocks.pop(second))
    assert replay.split.near_room() == 5 and replay.split.far[first] == 6
    assert replay.split.grow(first) == 0
    replay.blocks[first] += 1
    assert replay.near(first) == 6


def test_a_larger_share_promotes_nothing() -> None:
    """1 of 10 blocks near in a crowd; later the share is 10 / 29 of 11 = 3: the new block stays near, the far ones far.

    Would catch: room for one block taken from others, and more than that, for blocks that are not written now.
    """
    replay = Replay(10, 1000)
    crowd, late = replay.admit(80), replay.admit(20)
    assert crowd is not None and late is not None
    replay.place(crowd, 10)
    replay.place(late, 10)
    assert replay.near(late) == 1
    replay.split.release(crowd, replay.blocks.pop(crowd))
    replay.split.claimed -= 80
    other = replay.admit(9)
    assert other is not None
    assert replay.place(other, 9) == 0
    assert replay.place(late, 1) == 1
    assert (replay.near(late), replay.split.far[late], replay.near(other)) == (2, 9, 8)


def test_when_l3_is_full_nothing_is_demoted() -> None:
    """5 near + 5 far of 10 + 5: the next prompt's 5 blocks fit in L1 and nobody moves.

    Would catch: a demotion into a full pool.
    """
    replay = Replay(10, 5)
    first = replay.admit(10)
    assert first is not None
    replay.place(first, 10)
    for _ in range(5):  # grown beyond L1
        replay.split.claimed += 1
        replay.split.grow(first)
        replay.blocks[first] += 1
    assert replay.split.l3_used == 5 and replay.admit(1) is None
    replay.split.claimed -= 15
    replay.split.release(first, replay.blocks.pop(first))
    second, third = replay.admit(5), replay.admit(10)
    assert second is not None and third is not None
    assert replay.place(second, 5) == 0
    assert replay.place(third, 10) == 1  # its share: 10 x 10 / 15 = 6 of L1's 10
    assert (replay.near(second), replay.near(third)) == (4, 6)
    assert replay.split.l3_used == 5


def test_the_tail_stays_near() -> None:
    """10, 1 and 1 blocks in 4 of L1: the long sequence keeps 2, so that each has its newest, partial block near.

    Would catch: a sequence whose newest block is read from the pool in the step that writes it.
    """
    replay = Replay(4, 1000)
    for size in (10, 1, 1):
        request = replay.admit(size)
        assert request is not None
        replay.place(request, size)
    assert [replay.near(request) for request in replay.blocks] == [2, 1, 1]
