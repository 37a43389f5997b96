"""Page sets: roles of layers, sizes, and the process that draws them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kvcache.selection import Group, PageSets, groups_of, most_blocks, tokens_read
from simulator.kvcache.table import CHOSEN, PageTable
from simulator.scenario.resolved import Selection

BLOCK = 16


def process(selection: Selection, layers: int = 4, blocks: int = 101, sequences: int = 20, seed: int = 1) -> PageSets:
    groups = groups_of(selection, layers)
    table = PageTable(len(groups), [not group.selects for group in groups])
    table.slots(sequences)
    table.add(np.arange(sequences), np.full(sequences, blocks))
    sets = PageSets(selection, groups, table, BLOCK, np.random.default_rng(seed))
    for slot in range(sequences):
        sets.join(slot)
    return sets


def overlaps(sets: PageSets, steps: int, sequences: int = 20) -> list[float]:
    """Share of each step's sets that was in the sets before; the first step has none before it."""
    slots = np.arange(sequences)
    found, before = [], None
    for _ in range(steps):
        sets.advance(slots)
        now = np.concatenate(sets.entries(slots))
        assert len(np.unique(now)) == len(now)  # no page twice
        assert np.all(sets.table.flags[now] & CHOSEN)
        assert int((sets.table.flags & CHOSEN != 0).sum()) == len(now)
        if before is not None:
            found.append(float(np.isin(now, before).mean()))
        before = now
    return found


@pytest.mark.parametrize(("overlap", "floor"), [(0.0, 0.0), (0.3, 0.0), (0.8, 0.0), (0.8, 0.5), (0.8, 0.8), (1.0, 0.0)])
def test_overlap_is_what_was_asked_for(overlap: float, floor: float) -> None:
    """20 sequences, 4 groups, sets of 19 of 100 full pages: 1,520 pages a step over 40 steps. A share of so many draws has a
    standard error of 0.002; where the rounded floor is 15 or 10 of 19 pages, the expectation moves by less than 0.03.

    Would catch: a floor on top of the overlap instead of within it, replacements that were in the set before.
    """
    selection = Selection("pages", 20 * BLOCK, overlap=overlap, floor=floor)
    mean = float(np.mean(overlaps(process(selection), 41)))
    assert mean == pytest.approx(overlap, abs=0.03 if floor else 0.01)


def test_the_floor_never_changes() -> None:
    """A quarter of 20 selected pages (the newest aside: 5 of 19) is in the sets of all steps, and little else stays.

    Would catch: a floor that is drawn anew, or that protects other places in every step.
    """
    sets = process(Selection("pages", 20 * BLOCK, overlap=0.25, floor=0.25))
    slots = np.arange(20)
    always = set(np.concatenate(sets.entries(slots)).tolist())
    for _ in range(30):
        sets.advance(slots)
        always &= set(np.concatenate(sets.entries(slots)).tolist())
    assert len(always) == 20 * 4 * 5


def test_sets_change_at_refreshes_only() -> None:
    """Would catch: churn in between, or a clock that all sequences share instead of their own."""
    found = overlaps(process(Selection("pages", 20 * BLOCK, overlap=0.5, refresh=3)), 10)
    assert [share == 1.0 for share in found] == [True, True, False] * 3


def test_pages_are_popular_alike() -> None:
    """After many independent draws (overlap 0) all 50 full pages were chosen equally often: chi-square of 49 degrees of
    freedom within its 99.9 % quantile, 85.

    Would catch: pages that can never be drawn (the last full one), a bias to low numbers.
    """
    sets = process(Selection("pages", 11 * BLOCK, overlap=0.0, dense_layers=3), blocks=51, sequences=10)
    counts, slots = np.zeros(50), np.arange(10)
    for _ in range(200):
        sets.advance(slots)
        counts += np.bincount(sets.table.index[sets.entries(slots)[0] // 2], minlength=50)
    expected = counts.sum() / 50
    assert ((counts - expected) ** 2 / expected).sum() < 85


def test_everything_is_selected_while_it_fits() -> None:
    """A budget of at least the context: all full pages, also those that fill up later.

    Would catch: sets that do not grow with the context, the newest page counted twice.
    """
    sets = process(Selection("pages", 10 * BLOCK, overlap=0.5), blocks=3, sequences=1)
    for blocks in range(3, 15):
        sets.advance(np.array([0]))
        assert [len(entries) for entries in sets.entries(np.array([0]))] == [min(blocks, 10) - 1] * 4
        sets.table.add(np.array([0]), np.array([1]))
        sets.grow(0)


def test_roles() -> None:
    """Two dense layers, then every third selects: 2 + 3 + 3 + 2. A dense model is one group, or one per layer.

    Would catch: the last, shorter group lost; a reuse layer that selects.
    """
    selection = Selection("pages", 100, dense_layers=2, select_every=3, overlap=0.5)
    assert groups_of(selection, 10) == (Group(0, 2, False), Group(2, 3, True), Group(5, 3, True), Group(8, 2, True))
    assert groups_of(Selection("dense", 0), 4) == (Group(0, 4, False),)
    assert groups_of(Selection("dense", 0), 2, alone=True) == (Group(0, 1, False), Group(1, 1, False))


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(1, 400), st.integers(0, 8), st.integers(1, 4))
def test_tokens_read(contexts: list[int], budget: int, dense: int, every: int) -> None:
    """Against the sum over layers: all tokens in dense layers, else whole pages and the newest, partial one.

    Would catch: more tokens than there are, a budget in tokens where pages are read, an index of layers that reuse.
    """
    selection = Selection("pages", budget, dense_layers=dense, select_every=every, index=0.25, overlap=0.5)
    layers, total = 8, 0.0
    for layer in range(layers):
        for context in contexts:
            blocks = -(-context // BLOCK)
            pages = min(blocks, -(-budget // BLOCK))
            read = context if layer < dense else (pages - 1) * BLOCK + context - (blocks - 1) * BLOCK
            assert read <= context
            selects = layer >= dense and (layer - dense) % every == 0
            total += read + (0.25 * context if selects else 0.0)
    assert tokens_read(selection, np.array(contexts), BLOCK, layers) == pytest.approx(total / layers, abs=0.5 + 1e-9)


def test_a_fraction_of_the_context() -> None:
    """Would catch: a fraction of tokens rounded down to nothing."""
    blocks = np.array([1, 2, 10, 101])
    assert most_blocks(Selection("pages", 0, fraction=0.1), blocks, BLOCK).tolist() == [1, 1, 1, 11]
