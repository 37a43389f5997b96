"""Synthetic chats: sessions of several turns whose prompts repeat all that was said before, under shared prefixes.

A session has a path in a tree of prefixes (system prompt, then tools or documents under it, ...): a level has `count`
children under every node of the level above, one of which is drawn with a chance proportional to 1 / rank^skew. Turn k has
the prompt

    prefixes of the path + all earlier turns (what was asked, what was answered) + what is asked now

and arrives a think time after the end of turn k - 1 (closed loop). Numbers of turns are geometric or fixed, think times have a
Gamma distribution with the coefficient of variation `think_cv`. A session ends before a turn that would exceed `most` tokens.
Ids are those of 16-token blocks: equal exactly where all tokens up to the end of the block are equal by construction. A block
that begins in a prefix and ends behind it is not shared.
Not modelled: branches (edited or retried turns), parallel calls; recorded sessions have those (`agentic.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulator.workload.lengths import LengthsLike, draw_lengths
from simulator.workload.prefix_ids import flat
from simulator.workload.requests import Floats, Ints, Loop, Requests, starting

BLOCK = 16  # tokens


class Level(Protocol):
    """One level of the tree of shared prefixes."""

    @property
    def tokens(self) -> int: ...
    @property
    def count(self) -> int:
        """Children of every node above."""


class Chats(Protocol):
    @property
    def turns(self) -> float:
        """Mean of a session."""

    @property
    def fixed(self) -> bool:
        """Every session has just as many."""

    @property
    def think(self) -> float:
        """Mean, s."""

    @property
    def think_cv(self) -> float: ...
    @property
    def most(self) -> int:
        """Tokens of a prompt and its answer."""

    @property
    def prefixes(self) -> Sequence[Level]: ...
    @property
    def skew(self) -> float: ...


@dataclass
class _Blocks:
    """Numbers for blocks: `common` of a node of the tree, else new ones."""

    common: dict[tuple[int, ...], int]
    next: int = 0

    def new(self, count: int) -> range:
        first, self.next = self.next, self.next + count
        return range(first, self.next)

    def of_path(self, path: tuple[int, ...], levels: Sequence[Level]) -> list[int]:
        """Ids of the full blocks of a path, those of each node after those above it."""
        found: list[int] = []
        end = 0
        for depth, level in enumerate(levels):
            end += level.tokens
            count = end // BLOCK - len(found)
            node = path[: depth + 1]
            if node not in self.common:
                self.common[node] = self.new(count).start
            found += range(self.common[node], self.common[node] + count)
        return found


def chat_requests(
    chats: Chats, turns: int, starts: Floats, rng_lengths: np.random.Generator, rng_sessions: np.random.Generator,
    input: LengthsLike, output: LengthsLike, source: str, notes: tuple[str, ...],
) -> Requests:  # fmt: skip
    """`turns` requests of sessions that begin at `starts` (as many of them as are needed, at most one a turn)."""
    asked, answered = draw_lengths(rng_lengths, turns, input, output)
    shape = 1 / chats.think_cv**2 if chats.think_cv > 0 else np.inf
    blocks = _Blocks({})
    shared = sum(level.tokens for level in chats.prefixes)
    rows: list[tuple[int, int, int, int, float, float]] = []  # prompt, answer, session, after, delay, start
    ids: list[list[int]] = []
    further: list[list[int]] = []
    cut = 0
    for number, start in enumerate(starts.tolist()):
        if len(rows) == turns:
            break
        path = tuple(_child(rng_sessions, level.count, chats.skew) for level in chats.prefixes)
        chain, said = blocks.of_path(path, chats.prefixes), shared
        count = round(chats.turns) if chats.fixed else int(rng_sessions.geometric(1 / chats.turns))
        for turn in range(count):
            row = len(rows)
            if row == turns:
                break
            prompt, whole = said + int(asked[row]), said + int(asked[row] + answered[row])
            think = 0.0
            if turn:
                think = chats.think * (1.0 if np.isinf(shape) else float(rng_sessions.standard_gamma(shape)) / shape)
                if whole > chats.most:
                    cut += 1
                    break
            chain = [*chain, *blocks.new(whole // BLOCK - len(chain))]
            ids.append(chain[: prompt // BLOCK])
            further.append(chain[prompt // BLOCK :])
            rows.append((prompt, int(answered[row]), number, row - 1 if turn else -1, think, start))
            said = whole
    if cut:
        notes = (*notes, f"{cut} sessions ended early: the next turn would have exceeded {chats.most} tokens")
    prompts, outputs, session, after = (np.array([row[part] for row in rows], np.int64) for part in range(4))
    delay, arrival = (np.array([row[part] for row in rows], np.float64) for part in (4, 5))
    found = Requests(
        np.zeros(len(rows)), prompts, outputs, flat(ids), BLOCK, source, notes,
        output_ids=flat(further), session=session, loop=Loop(after, delay),
    )  # fmt: skip
    return starting(found, arrival)


def _child(rng: np.random.Generator, count: int, skew: float) -> int:
    if skew == 0.0:
        return int(rng.integers(count))
    weight: Floats = np.arange(1, count + 1, dtype=np.float64) ** -skew
    upto = np.cumsum(weight)
    chosen: Ints = np.searchsorted(upto, rng.uniform() * upto[-1], side="right")
    return int(chosen)
