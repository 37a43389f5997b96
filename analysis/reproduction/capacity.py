"""Capacity, what it costs, and what crosses the link: claims that follow from sizes, prices and one bound run.

Sequences are of 2,048 + 256 tokens. A tier holds capacity x ratio / (KV of a sequence); L2 is a buffer and does not count.
"""

from __future__ import annotations

from analysis.reproduction.claim import ABSTRACT, PAPER, REPORTED, WITHIN, Claim, Finding, Regime, Rows, largest
from analysis.reproduction.compression import RATIO
from analysis.reproduction.world import ALL_HEADS, GROUPED, MEASURED, Runs, Summary, decode_tokens_per_s, kv_per_token, scenario

TOKENS = 2048 + 256
LARGE = 64
CHEAPER, LESS = 2.8, 4.0  # reported: times
BOUND = "dense_mha_bound.yaml"


def claims(runs: Runs, rounds: int) -> list[Claim]:
    return [*_capacity(runs), _memory_cost(runs, rounds), _bandwidth(runs)]


def _bytes(summary: Summary, tier: str) -> float:
    return float(summary["tiers"][tier]["capacity_bytes"])


def _sequences(model: str, size: float) -> float:
    return size / (TOKENS * kv_per_token(model))


def _capacity(runs: Runs) -> list[Claim]:
    assumed, measured = runs.pool(ALL_HEADS, LARGE), runs.pool(ALL_HEADS, LARGE, *MEASURED)
    alone = runs.alone(ALL_HEADS, LARGE)
    near, far, hbm = _bytes(assumed, "l1"), _bytes(assumed, "l3"), _bytes(alone, "l1")
    stated, counted = assumed["compression"]["ratio"], measured["compression"]["ratio"]
    rows: Rows = []
    for model in (GROUPED, ALL_HEADS):
        sizes = {
            "L1 alone (12 GiB on each GPU)": near,
            "all of HBM that weights leave": hbm,
            "L1 and pool, not compressed": near + far,
            f"L1 and pool, ratio {stated:.2f} (stated)": near + far * stated,
            f"L1 and pool, ratio {counted:.2f} (measured)": near + far * counted,
        }  # fmt: skip
        rows += [
            {"model": model, "where": where, "GB of KV": size / 1e9, "sequences of 2,304 tokens": int(_sequences(model, size))}
            for where, size in sizes.items()
        ]
    board = scenario().resolved.pool
    assert board is not None
    raw = 8 * near - near
    boards = raw / board.board.memory
    plain = Claim(
        "capacity", "the pool holds 8 times the batch (16 to 128)", 8.0, "times", f"{PAPER}, Table 4", REPORTED,
        Finding((near + far) / near, f"{near / 1e9:.0f} GB of L1 and {far / 1e9:.0f} GB of pool, not compressed"),
        Finding((hbm + far) / hbm, f"against all {hbm / 1e9:.0f} GB that HBM leaves for KV in place of 12 GiB a GPU"),
        Regime(boards, f"{boards:.1f} boards of {board.board.memory / 1e9:.0f} GB in place of {board.boards}"),
        f"16 sequences fill L1 only if KV has all heads ({_sequences(ALL_HEADS, near):.0f} fit); as released, "
        f"{_sequences(GROUPED, near):.0f} fit L1 and {_sequences(GROUPED, hbm):.0f} HBM. 128 of all heads are "
        f"{128 * TOKENS * kv_per_token(ALL_HEADS) / 1e9:.0f} GB, L1 and pool {(near + far) / 1e9:.0f} GB, compressed "
        f"{(near + far * counted) / 1e9:.0f} GB.",
        tables={"Sequences that fit": rows},
    )  # fmt: skip
    ratio = (24 * near - near) / far
    packed = Claim(
        "capacity_compressed", "24 times with compression (16 to 384)", 24.0, "times", f"{PAPER}, Table 4", REPORTED,
        Finding((near + far * stated) / near, f"ratio {stated:.2f} in the pool"),
        Finding((near + far * counted) / near, f"ratio {counted:.2f} in the pool, as measured on keys and values"),
        Regime(ratio, f"a ratio of {ratio:.1f} with {board.boards} boards"),
        f"8 times already needs a ratio of {(8 * near - near) / far:.2f}: if the 8 has compression in it already, "
        "24 = 8 x 3 counts it twice.",
    )  # fmt: skip
    return [plain, packed]


def _memory_cost(runs: Runs, rounds: int) -> Claim:
    resolved = scenario().resolved
    pool, gpu = resolved.pool, resolved.gpus.gpu
    assert pool is not None
    counted = runs.pool(ALL_HEADS, LARGE, *MEASURED)["compression"]["ratio"]
    stated = runs.pool(ALL_HEADS, LARGE)["compression"]["ratio"]
    hbm = gpu.price / gpu.memory
    memory = pool.board.memory

    def cheaper(ratio: float, price: float) -> float:
        """How many times cheaper a byte of KV is in the pool."""
        return hbm / ((price / memory + pool.memory_price) / ratio)

    price = pool.board.price + pool.links_per_board * pool.link.price
    most = largest(lambda one: cheaper(stated, one) >= CHEAPER, 0.0, 1e6, max(rounds, 20))
    return Claim(
        "memory_cost", f"memory for KV costs {CHEAPER} times less", CHEAPER, "times", f"{PAPER}, abstract", ABSTRACT,
        Finding(cheaper(stated, price), f"a byte behind a board of {price:,.0f} USD, ratio {stated:.2f}, and one of HBM"),
        Finding(cheaper(counted, price), f"the same with ratio {counted:.2f}"),
        Regime(most, "not at any price of a board" if most is None else f"boards of at most {most:,.0f} USD without memory"),
        f"Their prices are not reported; these are the catalogue's ({resolved.cost.as_of}). More GPUs bring bandwidth and "
        f"compute with their HBM, a board brings neither.",
    )  # fmt: skip


def _bandwidth(runs: Runs) -> Claim:
    def run(place: str, ratio: float) -> Summary:
        return runs.of(f"kv.codec.ratio={ratio}", f"kv.codec.decompress_at={place}", file=BOUND)

    def gain(place: str, ratio: float) -> float:
        """Decode throughput with compression over that without."""
        return decode_tokens_per_s(run(place, ratio)) / decode_tokens_per_s(run(place, 1.0))

    at_gpu = gain("gpu", LESS)
    counted = runs.pool(ALL_HEADS, LARGE, *MEASURED)["compression"]["ratio"]
    return Claim(
        "bandwidth", f"compression reduces the bandwidth that is needed up to {LESS:g} times", LESS, "times",
        f"{PAPER}, abstract", ABSTRACT,
        Finding(gain("fpga", RATIO), "decompression on the FPGA, as in their design: raw bytes cross the link"),
        Finding(gain("fpga", counted), "the same with the measured ratio"),
        Regime(
            at_gpu if at_gpu >= (1.0 - WITHIN) * LESS else None,
            f"decompression on the GPU and a ratio of {LESS:g}: {at_gpu:.3g} times in the same run",
        ),
        "Decompression on the board saves capacity and memory bandwidth of the pool; raw bytes cross the link. This run is "
        f"bound by: {run('fpga', RATIO)['bound_by']}.",
    )  # fmt: skip
