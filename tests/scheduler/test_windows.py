"""The decode batch with sliding windows, against a count that touches every member in every step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.scheduler.batch import DecodeBatch

BLOCK, WINDOW = 4, 10
MOST = -(-(WINDOW - 1) // BLOCK) + 1


def check(batch: DecodeBatch, cached: dict[int, int]) -> None:
    """What the batch holds as aggregates is the sum over its members."""
    assert batch.context == sum(tokens + 1 for tokens in cached.values())
    assert batch.windowed == sum(min(tokens + 1, WINDOW) for tokens in cached.values())
    assert batch.blocks == sum(min(-(-tokens // BLOCK), MOST) for tokens in cached.values())
    assert batch.growing == sum(tokens + 1 < WINDOW for tokens in cached.values())
    starting = {one for one, tokens in cached.items() if tokens % BLOCK == 0 and tokens < MOST * BLOCK}
    assert set(batch.starting()) == starting


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.booleans()), min_size=1, max_size=30))
def test_windowed_batch_against_every_member(moves: list[tuple[int, int, bool]]) -> None:
    """Joins, leaves and runs of steps up to the next turn. Catches a turn one step early or late, a turn of a member that
    left and came back, blocks that go on being started, and growth that does not stop at the window."""
    batch, cached = DecodeBatch(BLOCK, WINDOW, MOST), {}
    for number, (tokens, steps, leaves) in enumerate(moves):
        if leaves and cached:
            gone = next(iter(cached))
            batch.leave(gone)
            del cached[gone]
        batch.join(number % 7 + 100 * (number % 7 in cached) + number, tokens, 10_000)
        cached[number % 7 + 100 * (number % 7 in cached) + number] = tokens
        check(batch, cached)
        left = steps
        while left:
            run = int(min(left, batch.steps_to_turn()))
            reads = [batch.windowed + batch.growing * ahead for ahead in range(run)]
            assert reads == [sum(min(n + ahead + 1, WINDOW) for n in cached.values()) for ahead in range(run)]
            batch.advance(run, batch.new_blocks(run))
            cached = {one: n + run for one, n in cached.items()}
            check(batch, cached)
            left -= run


def test_without_a_window_nothing_turns() -> None:
    """Catches runs that are cut although every member grows for ever."""
    batch = DecodeBatch(BLOCK)
    batch.join(1, 100, 50)
    assert batch.steps_to_turn() == float("inf") and batch.filling == 1
