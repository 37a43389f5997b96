"""What a replica finds again below L1: blocks parked in L3 (`kvcache.parked`), and those fetched into L2 (`prefetch.session`).

A request that is admitted looks for the leading run of its blocks: those in L1 come first, then, while they are in L2 or
L3, what follows. The latter get places in L1; blocks in L2 are moved inside HBM (no time), blocks in L3 are far pages of
the step in which the request's first piece runs: each layer waits for its own, as the prefetcher and the path allow. None
of them is computed again.
Blocks that leave L1 join the write-back of far memory; with `immediate` full ones do when the step that filled them is done.
Prefetches for sessions have the path when demand has not.
While the pool is out of reach nothing is found there, and what leaves L1 is lost; what was filled is written when it is back.
With a board everything that was parked is lost, since blocks are striped.
Layers with a window read of a prefix in L3 only the blocks that it covers, spread evenly among the others; what is parked, or
fetched for a session, is whole.
Where replicas share a pool, what one has parked there the others find as well (`parked` is then the same for all).
Events: none; the engine looks at `next_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.parked import Parked
from simulator.kvcache.prefix import PrefixCache
from simulator.kvcache.residency import Residency, Split
from simulator.prefetch.pipeline import Counts
from simulator.prefetch.session import SessionPrefetch
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory
from simulator.scheduler.session_flows import SessionFlows
from simulator.scheduler.shared import SharedFar
from simulator.scheduler.work import Work


class Reuse:
    def __init__(
        self, prefix: PrefixCache, far: FarMemory, geometry: Geometry, residency: Residency, scenario: ScenarioResolved,
        work: Work, clock: Callable[[], float],
    ):  # fmt: skip
        """`clock`: the replica's, s."""
        assert work.ids is not None  # there is a prefix cache
        kv, spec = scenario.kv, scenario.prefetch
        self.prefix, self.far, self.geometry, self.residency = prefix, far, geometry, residency
        self.parked = Parked(geometry.l3_blocks, kv.reuse.drop_after)
        self.spec, self._clock = kv.reuse, clock
        self._ids, self._after = work.ids, work.after
        self.sessions: SessionPrefetch | None = None
        if spec.predictor == "session":
            room = int(max(0.0, geometry.l2_bytes - 2 * geometry.burst * geometry.ranks) // geometry.block_bytes)
            if isinstance(far, SharedFar):
                self.sessions = SessionFlows(spec, far.rng, geometry.block_bytes, room, far.flows)
            else:
                self.sessions = SessionPrefetch(spec, far.rng, *self._pace(), room)
        self.fetching: dict[int, int] = {}  # request -> blocks that its first piece reads from L3
        model, tokens = scenario.model, geometry.block_tokens
        self._seen = -(-(model.window - 1) // tokens) if model.window else 0  # blocks before a token that a window reads
        full, layers = model.layers - model.windowed_layers, model.layers
        self._windowed = [(layer + 1) * full // layers == layer * full // layers for layer in range(layers)]
        self._unseen = 0  # blocks that first pieces of this step read from L3 in full layers only
        self.taken = Counts()  # pages that requests found in L2, and what was fetched beside them, since the last step
        self.staged: dict[int, int] = {}  # request -> blocks that it had in L2
        self._strays: list[int] = []  # turns that were expected here and went elsewhere
        self._filled: list[int] = []  # blocks that were filled since the last look, where they are written at once
        if kv.placement.write_back == "immediate":
            prefix.cached = self._filled.append
        else:
            prefix.forgotten = self._park

    def _park(self, identity: int) -> None:
        if self.far.reachable and self.parked.put(identity, self._clock(), self.far, self.geometry.block_bytes):
            self.residency.homed += self.geometry.layers
            self.far.demoted(1)

    @property
    def unseen(self) -> int:
        """New blocks of decoding sequences that change nothing below L1: the prefix cache need not be told at once."""
        return 0 if self.prefix.cached is not None else self.prefix.empty

    @property
    def next_at(self) -> float:
        """When something happens here though nothing happens to a request."""
        idle = self.prefix.idle_since + min(self.spec.demote_after, self.spec.drop_after)
        return min(idle, self.sessions.next_at) if self.sessions is not None else idle

    def look(self, now: float) -> None:
        """What is due by now: blocks leave L1, fetches for sessions begin. The prefix cache knows what sequences hold."""
        if self.far.reachable:
            for identity in self._filled:
                if self.prefix.holds(identity):
                    self._park(identity)
            self._filled.clear()
        if self.spec.drop_after < inf:
            told, self.prefix.forgotten = self.prefix.forgotten, None  # what is dropped is not demoted
            self.prefix.let_go(now, self.spec.drop_after)
            self.prefix.forgotten = told
        if self.spec.demote_after < inf:
            self.prefix.let_go(now, self.spec.demote_after)
        if self.sessions is not None:
            self._foresee(self.sessions, now)

    def _foresee(self, sessions: SessionPrefetch, now: float) -> None:
        """Turns that are not awaited here any more, and those for which a fetch begins."""
        for stray in self._strays:
            sessions.forget(stray)
            self.lost(stray, now)
        self._strays.clear()
        while (turn := sessions.due(now)) is not None:
            sessions.fetch(turn, self._missing(self._ids(self._after[turn]), now), now)
        self._hold()

    def _there(self, identity: int, now: float) -> bool:
        """A block can be read from L3."""
        return self.far.reachable and self.parked.holds(identity, now, self.far)

    def _missing(self, ids: Sequence[int], now: float) -> list[int]:
        """What of a leading run is in L3 and not in L1."""
        found = []
        for identity in ids:
            if not self.prefix.holds(identity):
                if not self._there(identity, now):
                    break
                found.append(identity)
        return found

    def parks(self, ids: Sequence[int], now: float) -> int:
        """Length of the leading run of these blocks that is in L3."""
        return next((at for at, identity in enumerate(ids) if not self._there(identity, now)), len(ids))

    def below(self, request: int, ids: Sequence[int], first: int, most: int, now: float) -> tuple[list[int], int]:
        """Ids of the blocks that follow the first ones and are in L2 or L3, at most up to number `most`; how many are in L2."""
        there = set(self.sessions.arrived(request, now)) if self.sessions is not None else set()
        found, ahead = [], 0
        for identity in ids[first:most]:
            if identity in there:
                ahead += 1
            elif not self._there(identity, now):
                break
            found.append(identity)
        return found, ahead

    def begin(self, request: int, found: Sequence[int], ahead: int, now: float) -> None:
        """An admitted request gets these blocks from below, `ahead` of them from L2."""
        self.parked.use(found, now)
        self.prefix.bring(request, found)
        self.fetching[request] = len(found) - ahead
        self.staged[request] = ahead
        self._settle(request, ahead, now)

    def resize(self, blocks: int, now: float) -> None:
        """L3 has room for so many blocks from now on."""
        self.parked.resize(blocks, now)

    def broke(self, at: float, now: float) -> None:
        """A board was lost at that time, and something of every block with it."""
        self.parked.lose(at, now)

    def rerouted(self, now: float) -> None:
        """Another way to the pool, or none: fetches for sessions end with what has come."""
        if self.sessions is not None:
            self.sessions.cut(now)
            self.sessions.pace(*self._pace())
            self._hold()

    def _pace(self) -> tuple[float, float]:
        """Seconds of a block on the path to L2, and of its latency."""
        return self.geometry.block_bytes / self.far.path.read_rate, self.far.path.read_latency

    def lost(self, request: int, now: float) -> None:
        """A request will never be admitted."""
        self._settle(request, 0, now)

    def _settle(self, request: int, used: int, now: float) -> None:
        if self.sessions is None:
            return
        fate, layers = self.sessions.take(request, used, now), self.geometry.layers
        for name in ("asked", "in_time", "proposed", "issued", "dropped", "useless"):
            setattr(fate, name, getattr(fate, name) * layers)
        self.taken.add(fate)
        self.far.counts.add(fate)
        self.far.fetched(fate.issued)
        self._hold()

    def _hold(self) -> None:
        if self.sessions is not None:
            self.far.keep(self.sessions.held * self.geometry.block_bytes)

    def read(self, request: int) -> tuple[int, int]:
        """Blocks that the first piece of a request reads from L3, and those that it had in L2; told once."""
        fetched = self.fetching.pop(request, 0)
        if self._seen:
            self._unseen += max(0, fetched - self._seen)
        return fetched, self.staged.pop(request, 0)

    def seen(self, pages: list[int]) -> list[int]:
        """Of the far pages of each layer in this step, those that it reads; asked once."""
        unseen, self._unseen = self._unseen, 0
        if not unseen:
            return pages
        return [count - unseen * windowed for count, windowed in zip(pages, self._windowed, strict=True)]

    def settled(self) -> Counts:
        """What a step took from L2, told once."""
        taken, self.taken = self.taken, Counts()
        return taken

    def announce(self, turn: int, arrival: float) -> None:
        """The next turn of a session will arrive then."""
        if self.sessions is not None:
            self.sessions.announce(turn, self._clock(), arrival)

    def stray(self, turn: int) -> None:
        """The next turn of a session has gone to another replica; it is noticed at the next look."""
        self._strays.append(turn)

    def busy(self, now: float, seconds: float) -> None:
        """Reads on demand have the path for so long."""
        if self.sessions is not None:
            self.sessions.busy(now, seconds)


def prefix_of(scenario: ScenarioResolved, geometry: Geometry, work: Work) -> PrefixCache | None:
    """The prefix cache of a replica, if it has one and the work has ids of its blocks."""
    if scenario.kv.sharing != "prefix" or work.ids is None or geometry.most_blocks:
        return None
    return PrefixCache(geometry.l1_blocks, geometry.block_tokens, scenario.kv.reuse.partial, geometry.more_blocks)


def reuse_of(
    prefix: PrefixCache | None, far: FarMemory | None, geometry: Geometry, near: Split | None, scenario: ScenarioResolved,
    work: Work, clock: Callable[[], float],
) -> Reuse | None:  # fmt: skip
    """What is below L1, where there is a prefix cache and a pool; `near`: the residency of who runs."""
    if prefix is None or far is None or near is None:
        return None
    return Reuse(prefix, far, geometry, near, scenario, work, clock)
