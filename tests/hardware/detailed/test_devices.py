"""Each detailed device against the closed form it has to obey. Tolerances: exact arithmetic unless said otherwise."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from math import inf

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.hardware.detailed.codec import PipelineParameters, Pipelines
from simulator.hardware.detailed.device import Burst, Device
from simulator.hardware.detailed.directory import DirectoryParameters
from simulator.hardware.detailed.dma import DmaEngine, DmaParameters
from simulator.hardware.detailed.lines import Lines
from simulator.hardware.detailed.link import LinkDirection, LinkParameters
from simulator.hardware.detailed.memory import MemoryController, MemoryParameters
from simulator.hardware.detailed.switch import Deadline, RoundRobin, SwitchOutput, SwitchParameters, Weighted
from simulator.hardware.detailed.translation import Translation, TranslationParameters
from simulator.hardware.fabric import DEMAND, PREFETCH, WRITE_BACK

TLB = TranslationParameters(entries=64, ways=4, page=4096.0, hit=5e-9, walk=100e-9)
LINES = DirectoryParameters(entries=1024, ways=8, grain=4096.0, latency=5e-9)
MEMORY = MemoryParameters(
    bandwidth=16e9, latency=200e-9, channels=16, banks=16, row=1024.0, row_cycle=45e-9, interleave=256.0, turnaround=15e-9,
    write_batch=16384.0,
)  # fmt: skip


class Way:
    """Bursts through a few devices; `ends` has when each was delivered."""

    def __init__(self, env: simpy.Environment, *route: Device):
        self.env, self.route, self.ends = env, route, []

    def send(self, size: float, priority: int = DEMAND, source: int = 0, descriptors: int = 1, deadline: float = inf) -> Burst:
        burst = Burst(size, descriptors, priority, 0, 0, self.route, self._delivered, deadline, source)
        self.route[0].send(burst)
        return burst

    def _delivered(self, burst: Burst) -> None:
        self.ends.append((self.env.now, burst))
        if isinstance(self.route[0], DmaEngine):
            self.route[0].acknowledge(burst)

    def times(self) -> list[float]:
        self.env.run()
        return [at for at, _ in self.ends]


def test_a_lone_burst_takes_the_latencies_and_its_time_at_the_slowest_device() -> None:
    """Cut through: 1 + 2 + 3 s and 100 B at 5 B/s.

    Would catch: store and forward (each device's transfer added up), a latency that is left out.
    """
    env = simpy.Environment()
    way = Way(env, Device(env, "a", 10.0, 1.0, 1.0), Device(env, "b", 5.0, 1.0, 2.0), Device(env, "c", 50.0, 2.0, 3.0))
    way.send(100.0)
    assert way.times() == [pytest.approx(6.0 + 20.0)]


def test_a_stream_runs_at_the_slowest_device() -> None:
    """50 bursts of 10 B behind a device of 5 B/s: the last is there at 3 + 50 x 2 s.

    Would catch: a bubble between bursts, two bursts at once in a device.
    """
    env = simpy.Environment()
    way = Way(env, Device(env, "a", 20.0, 1.0, 1.0), Device(env, "b", 5.0, 1.0, 2.0))
    for _ in range(50):
        way.send(10.0)
    assert way.times()[-1] == pytest.approx(3.0 + 100.0)
    assert way.route[1].busy == pytest.approx(100.0) and way.route[1].carried == 500.0


def test_urgent_bursts_overtake() -> None:
    """Would catch: first come first served between classes."""
    env = simpy.Environment()
    way = Way(env, Device(env, "a", 1.0, 1.0, 0.0))
    order = [way.send(1.0, priority) for priority in (WRITE_BACK, WRITE_BACK, PREFETCH, DEMAND)]
    way.times()
    assert [order.index(burst) for _, burst in way.ends] == [3, 2, 0, 1]


def test_a_full_buffer_holds_the_sender_back() -> None:
    """A receiver of 10 B buffer and 1 B/s behind a sender of 100 B/s: the sender may be one burst ahead.

    Would catch: an unlimited queue behind a link, credits that never come back.
    """
    env = simpy.Environment()
    slow = Device(env, "slow", 1.0, 1.0, 0.0, buffer=10.0)
    fast = Device(env, "fast", 100.0, 1.0, 0.0)
    way = Way(env, fast, slow)
    most = 0.0
    for _ in range(8):
        way.send(10.0)
    while env.peek() < inf:
        env.step()
        most = max(most, slow.backlog)
    assert most == 10.0 and fast.blocked > 50.0
    assert way.times()[-1] == pytest.approx(80.0, abs=1.0)


@pytest.mark.parametrize(("credits", "rate"), [(1000.0, 10.0), (100.0, 100.0 / 20.0), (inf, 10.0)])
def test_credits_limit_a_link(credits: float, rate: float) -> None:
    """min(payload rate, credits / round trip) with 10 B/s and 10 s one way.

    Would catch: credits of one way only, a link that needs none.
    """
    env = simpy.Environment()
    way = Way(env, LinkDirection(env, "link", LinkParameters(10.0, 10.0, credits), 1.0))
    for _ in range(100):
        way.send(10.0)
    assert way.times()[-1] == pytest.approx(10.0 + 1000.0 / rate)


def test_reads_take_their_requests_from_the_other_direction() -> None:
    """While reads fill one direction, writes run at 1 - 0.25 of theirs.

    Would catch: requests charged to the direction of the data, or charged when nothing is read.
    """
    env = simpy.Environment()
    reading, writing = (LinkDirection(env, name, LinkParameters(10.0, 0.0, inf), 1.0) for name in ("read", "write"))
    writing.shares_with(reading, 0.25)
    reads, writes = Way(env, reading), Way(env, writing)
    for _ in range(100):
        reads.send(10.0)
        writes.send(10.0, WRITE_BACK)
    assert reads.times()[-1] == pytest.approx(100.0)
    # 75 of the writes beside the reads, 25 alone; one burst is cut by the end of the reads
    assert writes.ends[-1][0] == pytest.approx(100.0 + 25.0, abs=1.5)


def test_tlb_reach_and_thrash() -> None:
    """A circle that fits the reach misses once a page; one page more than a set's ways and LRU misses every time.

    Would catch: random or FIFO replacement, sets that are not used.
    """
    fits = Translation(TLB)
    first = fits.look_up(0, TLB.reach)
    assert first == TLB.entries and fits.look_up(0, TLB.reach) == 0
    assert (fits.hits, fits.misses) == (TLB.entries, TLB.entries)
    beyond = Translation(TLB)
    for _ in range(5):
        assert beyond.look_up(0, 2 * TLB.reach) == 2 * TLB.entries
    assert beyond.hits == 0


def test_tlb_replaces_the_least_recently_used() -> None:
    """Four ways of one set, the first touched again: a fifth page replaces the second.

    Would catch: first in, first out.
    """
    tlb = Translation(TLB)
    sets = TLB.entries // TLB.ways
    touch = [page * sets * TLB.page for page in (0, 1, 2, 3, 0, 4)]
    assert [tlb.look_up(address, 1.0) for address in touch] == [1, 1, 1, 1, 0, 1]
    assert tlb.look_up(touch[0], 1.0) == 0 and tlb.look_up(touch[1], 1.0) == 1


def test_tlb_shootdown_drops_its_range_only() -> None:
    """Would catch: a flush of everything, a range that is one page short."""
    tlb = Translation(TLB)
    tlb.look_up(0, 10 * TLB.page)
    assert tlb.shoot_down(2 * TLB.page, 3 * TLB.page) == 3
    assert tlb.look_up(0, 10 * TLB.page) == 3


def ring(env: simpy.Environment, outstanding: float, tlb: TranslationParameters = TLB, descriptor: float = 0.0) -> DmaEngine:
    spec = DmaParameters(inf, outstanding, descriptor, 1e-9, 4096.0)
    return DmaEngine(env, "ring", spec, Translation(tlb), Lines(LINES), 1.0, 1e-6)


@pytest.mark.parametrize("window", [1, 2, 7, 64])
def test_dma_obeys_little(window: int) -> None:
    """n descriptors of 4 KiB over a round trip of 10 us: n x 4 KiB / 10 us; never more in flight than the window.

    Tolerance 2 %: the first and the last round trip of 400 descriptors. Would catch: a window of one too many.
    """
    env = simpy.Environment()
    engine = ring(env, window * 4096.0, replace(TLB, walk=0.0))
    way = Way(env, engine, Device(env, "far", inf, 1.0, 10e-6))
    count = 100 * window
    for _ in range(count):
        way.send(4096.0, PREFETCH)
    assert way.times()[-1] == pytest.approx(count / window * 10e-6, rel=0.02)
    assert engine.most_in_flight == window * 4096.0


@pytest.mark.parametrize("window", [1, 2, 7, 64])
def test_trains_keep_the_rate_of_their_descriptors(window: int) -> None:
    """The same with trains of 32 descriptors, longer than most of these windows.

    Tolerance 5 %: before the first delivery the engine does not know the round trip. Would catch: a train that counts as one
    descriptor (32 times too fast) or that waits for a window it does not fit into.
    """
    env = simpy.Environment()
    way = Way(env, ring(env, window * 4096.0, replace(TLB, walk=0.0)), Device(env, "far", inf, 1.0, 10e-6))
    for _ in range(100 * window):
        way.send(32 * 4096.0, PREFETCH, descriptors=32)
    assert way.times()[-1] == pytest.approx(3200 * 10e-6, rel=0.05)


def test_descriptors_and_walks_bound_the_ring() -> None:
    """One descriptor in 50 ns: 4 KiB / 50 ns. Walks of 100 ns that all miss: 4 KiB / 100 ns. A list of four pieces: 3 ns more.

    Would catch: walks in parallel, free descriptors, a scatter-gather list that costs nothing.
    """

    def seconds(walk: float, size: float = 4096.0) -> float:
        env = simpy.Environment()
        way = Way(env, ring(env, inf, replace(TLB, walk=walk), 50e-9))
        for number in range(1000):
            way.send(size, PREFETCH).address = number * 16384
        return way.times()[-1]

    assert seconds(0.0) == pytest.approx(999 * 50e-9)
    assert seconds(100e-9) == pytest.approx(1000 * 100e-9)
    assert seconds(0.0, 16384.0) == pytest.approx(999 * 53e-9)


def test_a_recall_delays_by_a_round_trip() -> None:
    """A directory of one set of two: the third line waits for its victim's holder.

    Would catch: recalls for free.
    """
    env = simpy.Environment()
    spec = DmaParameters(inf, inf, 0.0, 0.0, 4096.0)
    directory = Lines(DirectoryParameters(2, 2, 4096.0, 0.0))
    engine = DmaEngine(env, "ring", spec, Translation(replace(TLB, walk=0.0)), directory, 1.0, 1e-6)
    way = Way(env, engine, Device(env, "far", inf, 1.0, 0.0))
    for number in range(3):
        way.send(4096.0, DEMAND).address = number * 4096
    assert way.times() == [0.0, 0.0, pytest.approx(1e-6)]
    assert directory.recalls == 1


def test_turnaround_of_alternating_batches() -> None:
    """Reads that never cease, writes in batches of b: each batch costs two turnarounds, 2 b / (2 b / rate + 2 t).

    Would catch: a turnaround a burst, writes that starve or that go first.
    """
    env = simpy.Environment()
    controller = MemoryController(env, "memory", MEMORY, 1.0)
    way = Way(env, controller)
    for _ in range(400):
        way.send(4096.0, PREFETCH)
        way.send(4096.0, WRITE_BACK)
    end = way.times()[-1] - MEMORY.latency
    assert controller.turnarounds == pytest.approx(2 * 400 / 4, abs=8)
    assert end == pytest.approx(800 * 4096 / 16e9 + controller.turnarounds * 15e-9)


def test_rows_hide_behind_banks_and_small_bursts_use_few_channels() -> None:
    """Opening rows costs nothing while row / rate > row cycle / banks; with one bank each row takes its cycle. A burst of
    512 B lies on two of 16 channels.

    Would catch: a row miss for each row in full, a tiny burst as fast as a large one.
    """
    assert MEMORY.streaming == pytest.approx(16e9)
    assert replace(MEMORY, banks=1, row_cycle=2e-6).streaming == pytest.approx(16 * 1024 / 2e-6)
    env = simpy.Environment()
    way = Way(env, MemoryController(env, "memory", MEMORY, 1.0))
    way.send(512.0)
    assert way.times() == [pytest.approx(200e-9 + 512 / 2e9)]


def test_pipelines() -> None:
    """Two engines of 4 lanes x 16 B a cycle of 2.5 ns, interval 2: 4,096 B take 64 x 2 cycles; two at a time; fill of 20.

    Would catch: an interval that is ignored, engines in series, a fill for each word.
    """
    spec = PipelineParameters(engines=2, lanes=4, lane_bytes=16.0, cycle=2.5e-9, interval=2, depth=20)
    one = 64 * 2 * 2.5e-9
    assert spec.engine_rate == pytest.approx(4096 / one) and spec.fill == pytest.approx(50e-9)
    assert spec.seconds(4097.0) == pytest.approx(65 * 2 * 2.5e-9)
    env = simpy.Environment()
    way = Way(env, Pipelines(env, "decompress", spec, spec.fill, 0.5))
    for _ in range(6):
        way.send(4096.0)
    assert way.times() == [pytest.approx(50e-9 + turn * one) for turn in (1, 1, 2, 2, 3, 3)]


def test_a_burst_that_does_not_compress_is_bypassed() -> None:
    """Raw size in memory, no lanes, in order; the other one 0.6 of its size.

    Would catch: lanes that work on what is stored raw, more bytes stored than there are.
    """

    spec = PipelineParameters(engines=1, lanes=1, lane_bytes=1.0, cycle=1.0, interval=1, depth=0)
    env = simpy.Environment()
    pipes, memory = Pipelines(env, "compress", spec, 3.0, 0.5), MemoryController(env, "memory", MEMORY, 0.5)
    way = Way(env, pipes, memory)
    way.send(10.0).stored = 2.1  # stored 1.05 times its size
    way.send(10.0).stored = 1.2
    assert way.times() == pytest.approx([3.0, 13.0], abs=1e-6) and pipes.bypassed == 1
    assert memory.carried == pytest.approx(10.0 + 6.0)


def inputs(*sizes: list[float]) -> list[deque[Burst]]:
    return [deque(Burst(size, 1, 0, 0, 0, (), lambda _: None, deadline=size) for size in queue) for queue in sizes]


def served(arbiter: RoundRobin | Weighted | Deadline, queues: list[deque[Burst]]) -> list[int]:
    order = []
    while any(queues):
        order.append(arbiter.pick(queues))
        queues[order[-1]].popleft()
    return order


def test_arbiters() -> None:
    """Round robin takes turns in bursts; weighted in bytes, so eight of 4 KiB pass for one of 32 KiB; deadline by time.

    Would catch: an input that starves, a quantum that counts bursts.
    """
    assert served(RoundRobin(2), inputs([1.0] * 3, [1.0] * 2)) == [0, 1, 0, 1, 0]
    small, large = [4096.0] * 64, [32768.0] * 8
    order = served(Weighted(2), inputs(small, large))
    turn = [index for index, source in enumerate(order) if source == 1]
    assert [order[:end].count(0) for end in turn[:4]] == pytest.approx([8, 16, 24, 32], abs=1)
    double = served(Weighted(2, weights=[2.0, 1.0]), inputs(small, [4096.0] * 64))
    assert double[:60].count(0) == pytest.approx(40, abs=2)
    assert served(Deadline(2), inputs([3.0, 4.0], [1.0, 9.0])) == [1, 0, 0, 1]


def test_equal_inputs_share_a_switch_port_evenly() -> None:
    """Two inputs of equal bursts at one output: alternating, and the port is never idle.

    Would catch: an arbiter that favours the first input.
    """
    env = simpy.Environment()
    port = SwitchOutput(env, "switch", SwitchParameters(10.0, 1.0, inf, "round_robin"), 2, 1.0)
    way = Way(env, port)
    for source in (0, 0, 0, 1, 1, 1):
        way.send(10.0, source=source)
    assert way.times()[-1] == pytest.approx(6.0 + 1.0)
    assert [burst.source for _, burst in way.ends] == [0, 1, 0, 1, 0, 1]


@given(
    st.sampled_from([(1, 1), (4, 1), (4, 2), (8, 2)]), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=12)
)
def test_long_ranges_translate_as_their_pages_would(shape: tuple[int, int], ranges: list[tuple[int, int]]) -> None:
    """A range of any length at once, and page by page: the same walks, now and later.

    Would catch: a TLB that holds the wrong end of a long range, hits among what the range itself threw out.
    """
    spec = TranslationParameters(*shape, page=1.0, hit=0.0, walk=0.0)
    whole, single = Translation(spec), Translation(spec)
    for first, size in ranges:
        assert whole.look_up(first, size) == sum([single.look_up(page, 1) for page in range(first, first + size)])
    assert (whole.hits, whole.misses) == (single.hits, single.misses)


def test_weighted_inputs_of_a_port() -> None:
    """Weights 3, 1, 1 and bursts that always wait: the first has 3/5 of the bytes, whatever the sizes of the bursts.

    Would catch: weights that count bursts, or that are not those of their inputs.
    """
    env = simpy.Environment()
    port = SwitchOutput(env, "switch", SwitchParameters(1e6, 0.0, inf, "weighted", (3.0, 1.0, 1.0)), 3, 1.0)
    way = Way(env, port)
    for _ in range(200):
        way.send(8192.0, source=0)
        way.send(4096.0, source=1)
        way.send(16384.0, source=2)
    env.run(until=2.0)
    passed = [sum(burst.size for _, burst in way.ends if burst.source == source) for source in range(3)]
    assert passed == pytest.approx([0.6 * sum(passed), 0.2 * sum(passed), 0.2 * sum(passed)], abs=2 * 16384.0)


def test_a_full_buffer_leaves_every_input_its_share() -> None:
    """Four inputs of 1 B/s at an output of 4 B/s whose buffer holds one byte: their bursts of 10 B come in side by side.

    Would catch: inputs that wait for whole bursts of each other, so that the port idles.
    """
    env = simpy.Environment()
    port = SwitchOutput(env, "switch", SwitchParameters(4.0, 0.0, 1.0, "round_robin"), 4, 1.0)
    ways = [Way(env, Device(env, f"link {source}", 1.0, 1.0, 0.0), port) for source in range(4)]
    for source, way in enumerate(ways):
        for _ in range(3):
            way.send(10.0, source=source)
    assert [way.times()[-1] for way in ways] == pytest.approx([30.0] * 4)
