"""Token buckets against their fluid closed form, by hand."""

from __future__ import annotations

import pytest
import simpy

from simulator.hardware.bucket import Bucket
from simulator.hardware.fabric import Fabric, Flow, Stage

LINK, RATE, BURST = 100.0, 10.0, 60.0  # bytes/s, bytes/s, bytes


def world(burst: float = BURST, rate: float = RATE) -> tuple[simpy.Environment, Fabric, Bucket, Stage]:
    env = simpy.Environment()
    fabric, bucket = Fabric(env, checked=True), Bucket(env, "budget of a", rate, burst)
    bucket.fabric = fabric
    return env, fabric, bucket, Stage("link", LINK)


def ends(env: simpy.Environment, flow: Flow) -> list[float]:
    found: list[float] = []
    flow.done.callbacks.append(lambda _: found.append(env.now))
    return found


@pytest.mark.parametrize("size", [10.0, 60.0, 66.0, 67.0, 200.0, 5000.0])
@pytest.mark.parametrize("burst", [1e-6, 60.0, 1e4])
def test_a_transfer_alone_takes_its_closed_form(size: float, burst: float) -> None:
    """max(size / link, (size - burst) / rate): fast until the tokens are used, which come meanwhile; then at the rate.

    Would catch: tokens that do not come while they are used, a burst counted in another unit. 1e-9: a tick of 1 ns.
    """
    env, fabric, bucket, link = world(burst)
    end = ends(env, fabric.move(size, [(link, 1.0), (bucket.stage, 1.0)]))
    env.run()
    expected = max(size / LINK, (size - burst) / RATE)
    assert end == [pytest.approx(expected, rel=1e-9, abs=1e-8)]
    dry = burst / (LINK - RATE)  # when the tokens are used up, if it lasts so long
    assert bucket.throttled == pytest.approx(max(0.0, expected - dry), abs=1e-7)


def test_it_is_full_again_after_a_pause() -> None:
    """60 bytes at once, then 90 s later 96: the bucket has filled up to its burst and no further: (96 - 60) / 10 s.

    Would catch: tokens that are saved beyond the burst, or do not come while nothing moves.
    """
    env, fabric, bucket, link = world()
    path = [(link, 1.0), (bucket.stage, 1.0)]
    fabric.move(60.0, path)
    end = ends(env, fabric.move(96.0, path, latency=90.0))
    env.run()
    assert end == [pytest.approx(90.0 + 3.6, rel=1e-9)]


def test_transfers_of_one_owner_share_it_and_others_have_the_rest() -> None:
    """Without tokens two of a's transfers have 5 bytes/s each; b's, beside them on a link of 100, has the other 90.

    a: 2 x 50 bytes at 10 a second: 10 s. b: 1,000 bytes: 900 by then, the last 100 alone: 11 s.

    Would catch: a bucket a flow, and a link that gives back nothing of what a may not use.
    """
    env, fabric, bucket, link = world(burst=1e-6)
    mine = [ends(env, fabric.move(50.0, [(link, 1.0), (bucket.stage, 1.0)])) for _ in range(2)]
    other = ends(env, fabric.move(1000.0, [(link, 1.0)]))
    env.run()
    assert mine == [[pytest.approx(10.0, rel=1e-6)]] * 2
    assert other == [pytest.approx(11.0, rel=1e-6)]


def test_it_does_not_bind_where_the_path_is_slower() -> None:
    """A path of 4 bytes/s below a budget of 10: as if there were none, and tokens are saved for later.

    Would catch: a bucket that runs dry by what it lets through at its own rate; the link's seconds counted as throttled.
    """
    env, fabric, bucket, _ = world()
    slow = Stage("slow", 4.0)
    end = ends(env, fabric.move(400.0, [(slow, 1.0), (bucket.stage, 1.0)]))
    env.run()
    assert end == [pytest.approx(100.0, rel=1e-12)]
    assert bucket.throttled == 0.0
    assert not bucket.over


def test_charges_are_owed_and_paid_back_before_flows_move() -> None:
    """A charge of 100 leaves 40 owed: over for 4 s, in which a transfer of 20 bytes stands still; it then takes 2 s.

    Would catch: a charge that is cut at zero, flows that go on at the rate while something is owed (nothing is paid back).
    """
    env, fabric, bucket, link = world()
    bucket.charge(100.0)
    assert bucket.over and bucket.ready == pytest.approx(4.0)
    end = ends(env, fabric.move(20.0, [(link, 1.0), (bucket.stage, 1.0)]))
    env.run(3.9)
    assert bucket.over
    env.run(4.1)
    assert not bucket.over
    env.run()
    assert end == [pytest.approx(6.0, rel=1e-9)]
    assert bucket.throttled == pytest.approx(6.0, rel=1e-9)


def test_a_link_without_a_limit_passes_the_burst_at_once() -> None:
    """Nothing but the budget takes time: (size - burst) / rate.

    Would catch: an infinite rate against which tokens cannot be counted.
    """
    env, fabric, bucket, _ = world()
    end = ends(env, fabric.move(100.0, [(bucket.stage, 1.0)]))
    env.run()
    assert end == [pytest.approx(4.0, abs=1e-8)]
