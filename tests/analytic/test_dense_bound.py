"""Dense attention over far memory: bytes / bandwidth is the floor of a decode step, whatever is predicted.

`scenarios/dense_mha_bound.yaml` is run and compared with a bound that is computed here from contexts, block size, L1 and
the split rule. Band 85 to 100 %: what is missing is latency, layers that no prefetch covers, and computation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from simulator import simulate

SCENARIO = Path(__file__).parents[2] / "scenarios" / "dense_mha_bound.yaml"
TOKEN = 2 * 64 * 128 * 2 * 80  # bytes of KV: K and V, 64 heads of 128, fp16, 80 layers
BLOCK = 16 * TOKEN
LINKS = 4 * 64e9  # bytes/s
PROMPT, OUTPUT = 2016, 64
L1_BLOCKS = int(8 * 11e9 // BLOCK)
PREFETCHERS = ("none", "next_layer", "statistical", "oracle")


@cache
def decode_rate(batch: int, ratio: float, *overrides: str) -> float:
    """Output tokens/s of the decode steps, simulated; without check under LRU, whose waves are many to replay one by one."""
    fields = [f"scheduler.max_batch={batch}", f"kv.codec.ratio={ratio}", *overrides]
    if "prefetch.predictor=statistical" in overrides:
        fields += ["prefetch.coverage=0.947", "prefetch.accuracy=0.872"]
    summary = simulate(SCENARIO, set=fields, check="kv.placement.eviction=lru" not in overrides).summary
    assert summary["requests"]["finished"] == batch
    rate = summary["throughput"]["decode_output_tokens_per_s"]
    assert isinstance(rate, float)
    return rate


def far_blocks(batch: int, context: int, lru: bool) -> int:
    """Blocks that a decode step reads over the links.

    Split: all that L1 does not hold before the step's own token is added; what this sends to L3 is still read from HBM. LRU:
    the scan is larger than L1, so everything but the partial block of each sequence.
    """
    if lru:
        return batch * -(-context // 16) - batch
    return max(0, batch * -(-(context - 1) // 16) - L1_BLOCKS)


def bound(batch: int, ratio: float, lru: bool = False, held: float = 0.0) -> float:
    """Tokens/s if the links did nothing but carry the far bytes of the decode steps, which emit tokens 2 to 64, but for
    `held` bytes that L2 holds when the first of them begins."""
    contexts = range(PROMPT + 1, PROMPT + OUTPUT)  # tokens that the steps read, their own included
    raw = sum(far_blocks(batch, context, lru) * BLOCK for context in contexts) - held
    seconds = raw / ratio / LINKS
    return batch * len(contexts) / seconds


@pytest.mark.parametrize(("batch", "tokens_per_s"), [(64, (66, 132, 212)), (128, (55, 111, 178))])
def test_the_formula_at_2048_tokens(batch: int, tokens_per_s: tuple[int, ...]) -> None:
    """batch / (far bytes / ratio / 256 GB/s), 96 GB in L1 and L2: 66 / 132 / 212 and 55 / 111 / 178; with LRU 48 / 95 / 153.

    Would catch: an arithmetic slip in the bound itself, GB for GiB.
    """
    kv = batch * 2048 * TOKEN
    for ratio, expected in zip((1.0, 2.0, 3.21), tokens_per_s):
        assert batch * ratio * LINKS / (kv - 96e9) == pytest.approx(expected, abs=0.75)
    if batch == 64:
        assert [round(batch * ratio * LINKS / kv) for ratio in (1.0, 2.0, 3.21)] == [48, 95, 153]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.21])
@pytest.mark.parametrize("batch", [64, 128])
def test_decode_runs_at_the_bound(batch: int, ratio: float) -> None:
    """Next-layer prefetch: 85 to 100 % of the bound; with full L1 and 16-token blocks the far bytes are known exactly.

    Would catch: bytes that are not moved, moved twice, compressed twice; L2 that saves traffic; a step that waits for
    something else.
    """
    assert 0.85 <= decode_rate(batch, ratio) / bound(batch, ratio) <= 1.0


@pytest.mark.parametrize("predictor", PREFETCHERS)
@pytest.mark.parametrize("ratio", [1.0, 3.21])
def test_no_prefetcher_beats_the_bound(predictor: str, ratio: float) -> None:
    """A prefetcher that continues into the next step may have filled L2, 8 GB, before the first decode step begins.

    Would catch: a prediction that makes bytes free, transfers between steps that are not counted.
    """
    assert decode_rate(64, ratio, f"prefetch.predictor={predictor}") <= bound(64, ratio, held=8e9)


def test_the_oracle_is_the_fastest() -> None:
    """Would catch: a learned prefetcher that beats the one that knows."""
    rates = {name: decode_rate(64, 3.21, f"prefetch.predictor={name}") for name in PREFETCHERS}
    assert max(rates.values()) == rates["oracle"] >= rates["next_layer"] > rates["none"]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.21])
def test_lru_reads_everything_over_the_link(ratio: float) -> None:
    """A scan larger than L1 never hits: 85 to 100 % of all KV / bandwidth, and less than with split.

    Would catch: a hit rate of L1 / KV, which a cyclic scan under LRU does not have.
    """
    lru = decode_rate(64, ratio, "kv.placement.eviction=lru")
    assert 0.85 <= lru / bound(64, ratio, lru=True) <= 1.0
    assert lru < decode_rate(64, ratio)


def test_decompression_at_the_board_makes_the_ratio_useless() -> None:
    """Raw bytes cross the links: not 2 and not 3.21 times, exactly the same.

    Would catch: the ratio applied to a link that carries raw bytes.
    """
    rates = {decode_rate(64, ratio, "kv.codec.decompress_at=fpga") for ratio in (1.0, 2.0, 3.21)}
    assert len(rates) == 1
    assert 0.85 <= rates.pop() / bound(64, 1.0) <= 1.0


def test_faster_links_are_seen() -> None:
    """Half the far bytes a second: half the rate, within what computation hides.

    Would catch: a decode step whose time does not come from the links at all.
    """
    slow = decode_rate(64, 3.21, "cluster.kv_pool.link.bandwidth=32 GB/s")
    assert slow / decode_rate(64, 3.21) == pytest.approx(0.5, rel=0.03)
