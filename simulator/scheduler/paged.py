"""Far memory that knows its pages: what a step reads is looked up page by page, then timed like any step (`far`).

In each step, for one layer group after the other: the pages that the decoding sequences select (all, where layers are dense)
and the past of the prompt pieces; of them, what is in L1; what L2 kept; the rest is far. The counts by layer go through the
same closed form as without identity. A page predictor's proposals, made from the step before, are split into right and wrong
by the pages that are in fact far; what was issued for the next step is split when that comes.

L2 holds what is under way and, in the rest, what was fetched before (kept). Kept pages that this step reads stay put until
its end; the others make room, the oldest first, for what the predictor has under way. What leaves for that reason and is
asked for later is *pollution*. Wrong pages without a name (`statistical`) take room in L2 for one step.

    asked      far pages, and pages that L2 had because they were prefetched and not used so far (these are in time)
    l2_hits    pages that L2 kept after an earlier use: neither asked for nor prefetched
    useless    wrong pages count when they leave L2 unused, or at once where they find no room

Not modelled: a page that is written to L3 and read again while its write-back waits in L2.
Events: none of its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.hardware.interference import UNDISTURBED, Slow
from simulator.kvcache.by_name import PAGE_PREDICTORS
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.identity import PagedResidency
from simulator.kvcache.paged_lru import PagedLru
from simulator.kvcache.paged_split import PagedSplit
from simulator.kvcache.table import DISPLACED, HOME, IN_FLIGHT, KEPT, NEAR, UNUSED, Ids
from simulator.metrics.invariants import require
from simulator.metrics.traffic import GroupUse
from simulator.prefetch import pages as by_name
from simulator.prefetch.pages import Certain, Given, PagePredictor
from simulator.prefetch.pipeline import ByLayer, Counts
from simulator.prefetch.service import Answer
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.far import FarMemory, FarStep, Plan

NONE = np.zeros(0, np.int64)


class PagedFar(FarMemory):
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, checked: bool = False):
        self._spec = spec = scenario.prefetch
        named = spec.predictor in PAGE_PREDICTORS
        plain = replace(scenario, prefetch=replace(spec, predictor="none")) if named else scenario
        super().__init__(plain, geometry, rng, checked)
        self._held = False  # sequences wait while the prompts of others are computed
        self._pinned = 0  # pages of L2 that this step reads
        self._last: Plan | None = None
        self._whole = True
        self._held_bytes = 0.0  # of L2 by kept pages and reads
        self._issuing: list[int] = []  # wrong pages under way for each layer of the step
        self._given: Given | None = None
        self._names: PagePredictor | None = None
        if named:
            self._names = by_name.PAGE_PREDICTORS[spec.predictor](spec, rng)
            self.predictor = self._given = Given(self._names.window(geometry.layers))

    @property
    def refetch_seconds(self) -> float:
        """To fetch one page, unloaded."""
        return self.path.read_latency + self._page_time

    def attach(self, pages: PagedResidency) -> None:
        """The residency whose pages these are."""
        self.pages = pages
        groups = len(pages.groups)
        self._expected: list[Ids] = [NONE] * groups  # issued or to be issued for the next step
        self._far: list[Ids] = [NONE] * groups
        self._unread = [0] * groups  # far pages of the decoding sequences that were counted, not listed
        self._read: list[Ids] = [NONE] * groups  # by decoding sequences
        self._hits: list[Ids] = [NONE] * groups  # in L2
        self._group_of = np.repeat(np.arange(groups), pages.weight)
        self._selects = any(group.selects for group in pages.groups)
        self._by_counts = isinstance(pages, PagedSplit) and self._names is None
        if self._selects:
            self.counts.layers = ByLayer(self.geometry.layers)
        # pages of each group, ever: read from L1; from L2 after an earlier use; from L2 for the first time; wrong ones that L2
        # kept; of these, lost
        self._near, self._hit, self._early, self._kept_unused, self._lost_unused = np.zeros((5, groups), np.int64)
        if isinstance(pages, PagedSplit):
            pages.lazy = self.counted
        if self._spec.predictor == "next_layer":
            self.predictor = Certain(self._spec, pages.groups)

    @property
    def room(self) -> float:
        free = super().room - self._pinned * self.geometry.layer_bytes
        return max(free, self.geometry.burst * self.geometry.ranks)

    def begin(self, step: int, prompts: list[int], decodes: bool = True) -> int:
        """Look up what step `step` reads: the decoding sequences (if it `decodes`), and the past of the `prompts` in work.
        Pages in all."""
        pages = self.pages
        table = pages.table
        decoding, chosen = NONE, [NONE] * len(pages.groups)
        if decodes:
            pages.sync(step)
            decoding, chosen = pages.decoding, pages.draw()
        self._held = not decodes and len(pages.decoding) > 0
        past = np.array([slot for slot in map(pages.slot_of, prompts) if slot >= 0 and table.blocks[slot]], np.int64)
        newest = len(decoding) + len(past)
        total, place = newest * pages.layers_per_block, 0
        counted = self._by_counts
        # of groups that read all; where reading changes nothing, and nobody asks which pages, they are not listed
        all_rows = pages.loose() if decodes and not counted else NONE
        past_rows = pages.loose(past)
        for number, group in enumerate(pages.groups):
            if group.selects:
                decoded, place = chosen[place], place + 1
                table.use(decoded, step)
            else:
                decoded = table.entries_in(number, all_rows)
            before, ids = total, decoded
            if len(past):
                prompt = table.entries_in(number, past_rows)
                table.use(prompt, step)
                ids = np.concatenate([decoded, prompt])
            if isinstance(pages, PagedLru):  # the one group that there is, told by counts
                total += len(ids) * group.layers
                missed = pages.scan(ids, np.concatenate([decoding, past]), decodes)
                self._near[number] += total - before - missed + newest * group.layers
                continue
            away = ids[~pages.read(ids)]
            kept = table.flags[away] & KEPT != 0
            self._read[number], self._hits[number], self._far[number] = decoded, away[kept], away[~kept]
            self._unread[number] = 0
            total += len(ids) * group.layers
            if counted and decodes and not group.selects and isinstance(pages, PagedSplit):
                self._unread[number] = pages.far_active
                total += (pages.count_active - len(decoding)) * group.layers
            self._near[number] += newest * group.layers + total - before - (len(away) + self._unread[number]) * group.layers
        if decodes:
            table.scan(step)
            pages.after_reads()
        return total

    @property
    def counted(self) -> bool:
        """No page is asked for by name: how many are far, of each request, is all there is."""
        return self._by_counts and not self._selects

    def far_by_request(self) -> dict[int, int]:
        """Far pages of each request that the step reads."""
        pages, table = self.pages, self.pages.table
        if isinstance(pages, PagedLru):
            slots = np.flatnonzero(pages.missed_of)
            return dict(zip(pages.request_of[slots].tolist(), pages.missed_of[slots].tolist()))
        found = np.zeros(len(pages.request_of), np.int64)
        for ids, unread, group in zip(self._far, self._unread, pages.groups):
            found += group.layers * np.bincount(table.sequence[table.row_of(ids)], minlength=len(found))
            if unread:
                decoding = pages.decoding
                blocks = [pages.far[request] for request in pages.request_of[decoding].tolist()]
                found[decoding] += group.layers * np.array(blocks)
        slots = np.flatnonzero(found)
        return dict(zip(pages.request_of[slots].tolist(), found[slots].tolist()))

    def paged_step(
        self, ending: list[int], host: float, layer: float, head: float, produced: float, duration: float,
        slow: Slow = UNDISTURBED, sequences: int = 1, scores: float = 0.0,
    ) -> FarStep:  # fmt: skip
        """The step that `begin` looked up. `ending`: requests that end with it; the rest as in `step` and `unread`."""
        pages = self.pages
        evicted = pages.take_evicted()
        if evicted:
            self.evicted(evicted)
        early = self._use_kept() if self._selects else 0
        far = (
            pages.missed
            if isinstance(pages, PagedLru)
            else [
                len(ids) + unread
                for ids, unread, group in zip(self._far, self._unread, pages.groups)
                for _ in range(group.layers)
            ]
        )
        wrong = self._propose(far) if self._given is not None else None
        self._last = None
        if any(far) or wrong is not None:
            step = self.step(far, self._lost(ending), host, layer, head, produced, slow, sequences, scores)
        else:
            step = self.unread(produced, duration, slow)
        if self._selects:
            self._keep(far, wrong)
            self.unused -= early
            step.staged = max(step.staged, min(self.backlog + self._held_bytes, self.geometry.l2_bytes))
        self._pinned = 0
        for counts in (self.counts, step.reads):
            counts.asked += early
            counts.in_time += early
        return step

    def _use_kept(self) -> int:
        """Pages that L2 had: of them, those that were prefetched and not used so far."""
        pages, flags = self.pages, self.pages.table.flags
        found = np.array([len(ids) for ids in self._hits]) * pages.weight
        unused = np.array([np.count_nonzero(flags[ids] & UNUSED) for ids in self._hits]) * pages.weight
        self._hit += found - unused
        self._early += unused
        self._pinned, early = int(found.sum()), int(unused.sum())
        self.l2_hits += self._pinned - early
        for ids in self._far:
            back = ids[flags[ids] & DISPLACED != 0]
            if len(back):
                self.polluted += pages.weigh(back)
                flags[back] &= ~np.uint8(DISPLACED)
        return early

    def _lost(self, ending: list[int]) -> float:
        """Share of the far pages that belongs to sequences which end with this step."""
        if not ending or self._given is not None:
            return 0.0
        pages, table = self.pages, self.pages.table
        slots = [pages.slot_of(request) for request in ending]
        if isinstance(pages, PagedLru):
            return int(pages.missed_of[slots].sum()) / sum(pages.missed) if any(pages.missed) else 0.0
        total = lost = 0
        for ids, unread, group in zip(self._far, self._unread, pages.groups):
            total += (len(ids) + unread) * group.layers
            if unread and isinstance(pages, PagedSplit):
                lost += min(unread, pages.far_of(ending)) * group.layers
            lost += int(np.isin(table.sequence[table.row_of(ids)], slots).sum()) * group.layers
        return lost / total if total else 0.0

    # --- pages proposed by name

    def _propose(self, far: list[int]) -> list[Ids] | None:
        """Split what was expected of this step into right and wrong, tell the predictor what it read, and work out what it
        expects of the next one. The wrong pages of each group; None if nothing is or will be under way."""
        given, names, pages, carry = self._given, self._names, self.pages, self._carry
        assert given is not None and names is not None
        flags = pages.table.flags
        right, wrong = [], []
        for expected, needed in zip(self._expected, self._far):
            right.append(int(np.count_nonzero(flags[needed] & IN_FLIGHT)))
            flags[needed] &= ~np.uint8(IN_FLIGHT)
            wrong.append(expected[flags[expected] & IN_FLIGHT != 0])  # of the others that are not, the sequences have ended
            flags[wrong[-1]] &= ~np.uint8(IN_FLIGHT)
        window = given.window(len(far))
        for one in range(len(carry.ready)):  # as many as were issued, whatever ended or did not fit
            issued, group = carry.right[one] + carry.wrong[one], self._group_of[one]
            carry.right[one] = min(right[group], issued)
            carry.wrong[one] = issued - carry.right[one]
        if not self._held:  # those who wait read next what they would have read now
            names.observe(self._read)
        self._expected = []
        fetched = sum(len(ids) * group.layers for ids, group in zip(self._far, pages.groups) if group.selects)
        stays = pages.kept.used + fetched <= int(super().room / self.geometry.layer_bytes)  # what this step fetches
        for ids, group, fetching in zip(names.expect(), pages.groups, self._far):
            passing = fetching if stays and group.selects else NONE
            flags[passing] |= IN_FLIGHT
            new = ids[flags[ids] & (NEAR | KEPT | HOME | IN_FLIGHT) == HOME]
            flags[passing] &= ~np.uint8(IN_FLIGHT)
            flags[new] |= IN_FLIGHT
            self._expected.append(new)
        following = [len(ids) for ids in self._expected]
        given.right = [right[group] for group in self._group_of] + [following[group] for group in self._group_of[:window]]
        given.wrong = [len(wrong[group]) for group in self._group_of] + [0] * window
        before = carry.wrong if carry.ready else [0]
        self._issuing = [*before, *given.wrong[len(before) :]]
        return wrong if carry.ready or any(right) or any(map(len, wrong)) or any(following) else None

    # --- L2

    def _plan(self, far: list[int], room: int, counts: Counts, sequences: int, answer: Answer) -> Plan:
        self._last = plan = super()._plan(far, room, counts, sequences, answer)
        self._whole = counts.dropped == 0  # no proposal was cut
        return plan

    def _keep(self, far: list[int], wrong: list[Ids] | None) -> None:
        """After a step: what it read from L2 or L3 stays in L2 where there is room, and what it fetched for nothing. What is
        under way goes first; kept pages that leave for it, and would not have for demand, are displaced."""
        pages, flags, plan = self.pages, self.pages.table.flags, self._last
        room = int(super().room / self.geometry.layer_bytes)
        most = max(far, default=0)
        pages.promoted(np.concatenate(self._hits))
        pages.keep(pages.take_demoted())
        for ids, group in zip(self._far, pages.groups):
            if group.selects:
                pages.keep(ids)
        pages.make_room(room - most)
        staged = most
        if plan is not None and plan.window:
            staged = plan.staged
            if wrong is None:
                staged += sum(plan.wrong[: len(far)])
            else:
                self._keep_wrong(wrong, plan)
        flags[pages.make_room(room - staged)] |= DISPLACED
        limit = max(0, room - staged)
        require("INV-CAPACITY", pages.kept.used <= limit, f"L2 keeps {pages.kept.used} pages, has room for {limit}")
        self._held_bytes = (pages.kept.used + min(staged, room)) * self.geometry.layer_bytes
        lost, pages.unused_lost = pages.unused_lost, 0
        self.counts.useless += lost
        self._lost_unused = pages.unused_lost_of.copy()
        self.unused -= lost

    def _keep_wrong(self, wrong: list[Ids], plan: Plan) -> None:
        """Wrong pages that were issued in all their layers stay in L2, unused: not useless yet."""
        pages, issued = self.pages, self._issuing
        if not self._whole:
            return
        for number, (ids, group) in enumerate(zip(wrong, pages.groups)):
            layers = range(group.first, group.first + group.layers)
            if group.selects and len(ids) and all(issued[one] == len(ids) for one in layers):
                before = pages.kept.used
                pages.keep(ids, unused=True)
                self.unused += pages.kept.used - before
                self.counts.useless -= pages.kept.used - before
                self._kept_unused[number] += pages.kept.used - before

    def by_group(self) -> list[GroupUse]:
        seen = self.counts.layers
        if seen is None:
            return super().by_group()
        found = []
        for number, group in enumerate(self.pages.groups):
            layers = slice(group.first, group.first + group.layers)
            asked, demand, late, useless = (sum(one[layers]) for one in (seen.asked, seen.demand, seen.late, seen.useless))
            early, kept_unused = int(self._early[number]), int(self._kept_unused[number])
            useless += int(self._lost_unused[number]) - kept_unused
            in_time = asked - demand - late + early
            near, hit = int(self._near[number]), int(self._hit[number])
            found.append(GroupUse(group.first, group.layers, group.selects, near, hit, demand, in_time, late, useless))
        return found
