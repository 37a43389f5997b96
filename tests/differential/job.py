"""A request in the reference servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Job:
    number: int
    arrival: float
    prompt: int
    output: int
    ids: Sequence[int] = ()  # of the full blocks of its prompt and answer
    kind: int = 0
    tenant: int = 0
    session: int = -1
    cached: int = 0  # tokens whose KV is there
    goal: int = 0  # tokens to have there before it decodes (again)
    decoding: bool = False
    blocks: list[int] = field(default_factory=list)
    reserved: int = 0  # blocks that it may have without asking
    away: int = 0  # tokens whose KV is swapped out
    times: list[float] = field(default_factory=list)  # when each of its tokens came out
    admitted: list[float] = field(default_factory=list)
    hits: int = 0  # tokens found in the prefix cache, over all admissions
    preempted: int = 0
    rejected: bool = False
    brought: bool = False  # its prompt was computed elsewhere, its KV is here

    @property
    def tokens(self) -> int:
        return self.prompt + len(self.times)
