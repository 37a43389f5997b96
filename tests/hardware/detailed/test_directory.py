"""Coherence (INV-COHERENCE): closed forms, and the directory as a state machine against a model that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from simulator.hardware.detailed.directory import NOTHING, Cost, Directory, DirectoryParameters
from simulator.hardware.detailed.lines import Lines

LARGE = DirectoryParameters(entries=4096, ways=16, grain=64.0, latency=0.0)


def test_ping_pong_between_two_writers() -> None:
    """Each write takes the line from the other: one round trip, one message, one write-back a turn, from the second on.

    Would catch: dirty data dropped on the way, an owner that keeps its copy.
    """
    directory = Directory(LARGE)
    costs = [directory.write(7, turn % 2) for turn in range(10)]
    assert costs == [NOTHING, *[Cost(1, 1, 1)] * 9]
    assert directory.holders(7) == {1} and directory.state(7) == "M"
    assert directory.written_back == 9


def test_ping_pong_between_a_reader_and_a_writer() -> None:
    """Write: invalidates the other's copy; read: snoops the dirty one. A round trip each.

    Would catch: a reader that sees what was never written back.
    """
    directory = Directory(LARGE)
    directory.write(0, 0)
    for _ in range(5):
        assert directory.read(0, 1) == Cost(1, 1, 1) and directory.holders(0) == {0, 1}
        assert directory.write(0, 0) == Cost(1, 1, 0) and directory.holders(0) == {0}


def test_invalidations_of_sharers_go_in_parallel() -> None:
    """Would catch: a round trip for each of seven sharers, an invalidation of the writer itself."""
    directory = Directory(LARGE)
    for gpu in range(8):
        directory.read(3, gpu)
    assert directory.write(3, 0) == Cost(1, 7, 0)


def test_states() -> None:
    """First reader E, second S, writer M, untracked read of M leaves S, the last evict leaves nothing.

    Would catch: E never entered, an entry that outlives its holders.
    """
    directory = Directory(LARGE)
    assert directory.state(1) == "I"
    directory.read(1, 0)
    assert directory.state(1) == "E"
    directory.read(1, 1)
    assert directory.state(1) == "S"
    directory.write(1, 1)
    assert directory.state(1) == "M"
    assert directory.current(1, 0) == Cost(1, 1, 1) and directory.state(1) == "S" and directory.holders(1) == {1}
    directory.evict(1, 1)
    assert directory.state(1) == "I"


@pytest.mark.parametrize("dirty", [False, True])
def test_recall_on_eviction(dirty: bool) -> None:
    """A set of four: the fifth line recalls the least recently used one, with its dirty data.

    Would catch: a silent replacement (lost owner, lost data), the wrong victim.
    """
    directory = Directory(DirectoryParameters(4, 4, 64.0, 0.0))
    for line in range(4):
        (directory.write if dirty else directory.read)(line, line)
    directory.current(0, 0)  # untracked: line 0 stays the oldest
    assert directory.read(4, 0) == Cost(1, 1, int(dirty))
    assert directory.recalls == 1 and directory.holders(0) == set() and directory.holders(1) == {1}


class AgainstAModel(RuleBasedStateMachine):
    """Every GPU's copies and where the newest data are, next to the directory's own view."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory(DirectoryParameters(8, 2, 64.0, 0.0))
        self.newest: dict[int, int] = {}  # line -> version written last
        self.memory: dict[int, int] = {}  # line -> version in the pool
        self.dirty_at: dict[int, int] = {}  # line -> GPU that holds data newer than the pool's

    def settle(self, lines: set[int], written_back: int) -> None:
        """Dirty lines whose owner is gone must have been written back, and counted."""
        gone = [line for line in sorted(self.dirty_at) if self.directory.state(line) != "M"]
        for line in gone:
            self.memory[line] = self.newest[line]
            del self.dirty_at[line]
        assert len(gone) <= written_back

    @rule(line=st.integers(0, 15), gpu=st.integers(0, 3))
    def read(self, line: int, gpu: int) -> None:
        cost = self.directory.read(line, gpu)
        assert gpu in self.directory.holders(line)
        self.settle({line}, cost.written_back)

    @rule(line=st.integers(0, 15), gpu=st.integers(0, 3))
    def write(self, line: int, gpu: int) -> None:
        before = self.dirty_at.get(line)
        cost = self.directory.write(line, gpu)
        if before is not None and before != gpu:
            self.memory[line] = self.newest[line]
            assert cost.written_back >= 1
        self.settle({line}, cost.written_back)
        self.newest[line] = self.newest.get(line, 0) + 1
        self.dirty_at[line] = gpu
        assert self.directory.holders(line) == {gpu} and self.directory.state(line) == "M"

    @rule(line=st.integers(0, 15), gpu=st.integers(0, 3))
    def current(self, line: int, gpu: int) -> None:
        cost = self.directory.current(line, gpu)
        self.settle({line}, cost.written_back)
        # what is read is the newest: the pool's, or the reader's own copy
        assert self.memory.get(line, 0) == self.newest.get(line, 0) or self.dirty_at[line] == gpu

    @rule(line=st.integers(0, 15), gpu=st.integers(0, 3))
    def evict(self, line: int, gpu: int) -> None:
        cost = self.directory.evict(line, gpu)
        assert gpu not in self.directory.holders(line)
        self.settle({line}, cost.written_back)

    @invariant()
    def inv_coherence(self) -> None:
        entries = 0
        for line in range(16):
            state, holders = self.directory.state(line), self.directory.holders(line)
            entries += state != "I"
            assert (state == "I") == (not holders)
            assert state == "S" or len(holders) <= 1, "an owner excludes sharers"
            assert (state == "M") == (line in self.dirty_at), "dirty data is never dropped"
            if line in self.dirty_at:
                assert holders == {self.dirty_at[line]}
            else:
                assert self.memory.get(line, 0) == self.newest.get(line, 0)
        assert entries <= 8


TestDirectory = AgainstAModel.TestCase
TestDirectory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


ASK = st.sampled_from(["read_all", "current_all", "write_through", "evict_all"])
RANGES = st.tuples(ASK, st.integers(0, 40), st.integers(1, 9))


@given(st.sampled_from([(8, 1), (16, 2), (16, 4)]), st.lists(st.tuples(RANGES, st.integers(0, 2)), max_size=30))
def test_many_lines_at_once(shape: tuple[int, int], asked: list[tuple[tuple[str, int, int], int]]) -> None:
    """Runs of lines against the directory asked line by line: the same round trips, counters, states and victims.

    Would catch: a recall that a run hides, two GPUs that own a line, another least recently used line.
    """
    spec = DirectoryParameters(*shape, 64.0, 0.0)
    runs, single = Lines(spec), Directory(spec)

    def one_by_one(what: str, line: int, gpu: int) -> int:
        if what == "evict_all":
            return 0 * single.evict(line, gpu).rounds
        if what == "write_through":
            rounds = single.write(line, gpu).rounds
            single.evict(line, gpu)
            return rounds
        return (single.read if what == "read_all" else single.current)(line, gpu).rounds

    for (what, first, count), gpu in asked:
        rounds = max([one_by_one(what, line, gpu) for line in range(first, first + count)])
        assert (getattr(runs, what)(range(first, first + count), gpu) or 0) == rounds
        counters = [(one.recalls, one.messages, one.written_back) for one in (runs, single)]
        assert counters[0] == counters[1]
    assert [(runs.state(line), runs.holders(line)) for line in range(50)] == [
        (single.state(line), single.holders(line)) for line in range(50)
    ]
