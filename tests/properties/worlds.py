"""Generated small scenarios: tiers of a few blocks, so that demotion, write-back waits, preemption, waves and partial windows
occur, with every policy there is."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.properties.small import Rows, blocks, pool

TOKENS = st.sampled_from([1, 2, 15, 16, 17, 31, 33]) | st.integers(1, 110)
ARRIVAL = st.just(0.0) | st.floats(0, 0.01) | st.floats(0, 0.5)
ROWS = st.lists(st.tuples(ARRIVAL, TOKENS, TOKENS), min_size=1, max_size=12).map(sorted)

PREFETCH = st.one_of(
    st.just({"predictor": "none"}),
    st.builds(lambda depth: {"predictor": "next_layer", "depth": depth}, st.integers(0, 6)),
    st.builds(
        lambda depth, coverage, accuracy, latency: {
            "predictor": "statistical", "depth": depth, "coverage": coverage, "accuracy": accuracy, "latency": latency,
        },
        st.integers(0, 6), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([0.3, 0.9, 1.0]),
        st.sampled_from(["0 s", "10 us"]),
    ),
    st.builds(
        lambda depth, latency: {"predictor": "history", "depth": depth, "latency": latency},
        st.integers(0, 6), st.sampled_from(["0 s", "10 us"]),
    ),
    st.just({"predictor": "oracle"}),
    st.builds(
        lambda settings, calls, control, priority, depth: {
            **settings, **calls, "control": control, "priority": priority, "depth": depth,
        },
        st.sampled_from([
            {"predictor": "statistical", "coverage": 0.9, "accuracy": 0.5},
            {"predictor": "attention", "coverage": 0.8, "accuracy": 0.7, "score": 0.2}, {"predictor": "token_model"},
            {"predictor": "cxl_speckv", "addresses": "far_pages"}, {"predictor": "cxl_speckv", "guesses": 2},
        ]),
        st.sampled_from([
            {}, {"service": "20 us"}, {"service": "500 us", "batch": 2}, {"service": "10 us", "placement": "gpu"},
            {"queue": 2, "latency": "300 us", "placement": "host"},
        ]),
        st.sampled_from(["fixed", "additive", "ucb", "feedback"]), st.sampled_from(["demand", "demand", "equal"]),
        st.integers(0, 6),
    ),
)  # fmt: skip
CODEC = st.none() | st.builds(
    lambda ratio, compress, decompress: {"ratio": ratio, "compress_at": compress, "decompress_at": decompress},
    st.sampled_from([1.0, 1.7, 3.2]), st.sampled_from(["fpga", "gpu"]), st.sampled_from(["fpga", "gpu"]),
)  # fmt: skip
PLACEMENT = st.one_of(
    st.just({"eviction": "split"}),
    st.builds(
        lambda eviction, l2, write_back: {"eviction": eviction, "l2": l2, "write_back": write_back},
        st.sampled_from(["lru", "lru", "fifo", "lfu", "cost", "share", "priority"]),
        st.sampled_from(["exclusive", "exclusive", "inclusive"]), st.sampled_from(["lazy", "lazy", "immediate"]),
    ),
    st.builds(
        lambda threshold, adapt: {"eviction": "hot", "threshold": threshold, "adapt": adapt},
        st.sampled_from([0, 2, 10]), st.booleans(),
    ),
)  # fmt: skip
PAGES = st.builds(
    lambda budget, dense, every, index, overlap, refresh: {
        "kind": "pages", **budget, "dense_layers": dense, "select_every": every, "index": index, "overlap": overlap,
        "floor": overlap / 2, "refresh": refresh,
    },
    st.sampled_from([{"tokens": "1 token"}, {"tokens": "40 tokens"}, {"fraction": 0.3}, {"fraction": 1.0}]),
    st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.7, 1.0]), st.integers(1, 3),
)  # fmt: skip
SCHEDULER = st.builds(
    lambda batching, places, budget, chunk, reserve, watermark: {
        "batching": batching, "max_batch": places, "token_budget": f"{budget} tokens",
        "prefill_chunk": f"{min(chunk, budget)} tokens", "reserve": reserve, "watermark": watermark,
    },
    st.sampled_from(["continuous", "static"]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([8, 20, 64, 256]),
    st.sampled_from([1, 8, 256]), st.sampled_from(["prompt", "prompt", "full"]), st.sampled_from([0.0, 0.01, 0.2]),
)  # fmt: skip
MOMENT = st.sampled_from([0.0, 0.0005, 0.003, 0.02]) | st.floats(0, 0.2)  # s; most worlds last some hundredths
FAULT = st.builds(
    lambda what, at, lasting, loss: (
        what | {"at": f"{at!r} s"} | lasting
        | (loss if what["what"] == "board_lost" or (what["what"] == "link_down" and not lasting) else {})
    ),
    st.sampled_from([
        {"what": "link_down"}, {"what": "link_down", "link": "gpu"}, {"what": "board_lost"},
        {"what": "link_degraded", "factor": 0.3}, {"what": "latency_spike", "latency": "80 us"},
    ]),
    MOMENT, st.sampled_from([{}, {"for": "1 ms"}, {"for": "20 ms"}]), st.sampled_from([{}, {"on_loss": "abort"}]),
)  # fmt: skip
LAYOUTS = st.sampled_from([
    {"all": {"kind": "full", "kv_scale": 0.3}},
    {"a": {"share": 0.5, "sink": "4 tokens", "kind": "window", "window": "30 tokens"}, "b": {"share": 0.5}},
    {"a": {"share": 0.75, "kind": "window", "window": "20 tokens", "fraction": 0.2}, "b": {"share": 0.25, "run_every": 4}},
    {"a": {"share": 0.5, "kind": "ssm", "state": "24 KiB"}, "b": {"share": 0.5, "tokens_per_entry": 4}},
])  # fmt: skip
POLICIES = st.dictionaries(
    st.sampled_from(["kv.layout", "kv.hbm_codec", "kv.retention", "kv.selection", "kv.loop"]),
    st.integers(0, 3),
    min_size=1,
    max_size=3,
)
ALIKE = st.sampled_from([
    {"kv.layout": {"groups": {"all": {"kv_scale": 0.3}}}}, {"kv.hbm_codec": {"ratio": 2.2}, "kv.layout": {"query_heads": 0.5}},
    {"kv.layout": {"groups": {"all": {"tokens_per_entry": 4}}}, "kv.retention": {"keep": 0.5, "when": "prefill_end"}},
    {"kv.hbm_codec": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32}},
])  # fmt: skip
CHOICES: dict[str, list[dict[str, Any]]] = {
    "kv.hbm_codec": [
        {"ratio": 2.2}, {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32},
        {"k_bits": 4, "v_bits": 2, "residual": "20 tokens"},
        {"by_age": {"new": {"older_than": "0 tokens", "bits": 16}, "old": {"older_than": "25 tokens", "bits": 4}}},
    ],
    "kv.retention": [
        {"keep": 0.5, "window": "16 tokens"}, {"keep": 0.3}, {"keep": 0.5, "when": "prefill_end"}, {"prompt_scale": 0.6},
    ],
    "kv.selection": [
        {"v_fraction": 0.3}, {"k_fraction": 0.5, "stage": "both"},
        {"kind": "budget", "tokens": "30 tokens", "stage": "both", "v_fraction": 0.5},
        {"kind": "budget", "tokens": "7 tokens", "k_fraction": 0.9},
    ],
    "kv.loop": [
        {"kind": "speculative", "draft": 3, "acceptance": [0.9, 0.5, 0.1], "draft_cost": 0.1},
        {"kind": "parallel_workers", "workers": 3, "steps_scale": 0.5},
        {"kind": "block_diffusion", "steps_scale": 1.7, "recompute": 0.1},
        {"kind": "denoise", "steps_scale": 0.4, "recompute": 0.0},
    ],
}  # fmt: skip


@st.composite
def worlds(
    draw: st.DrawFn, far: bool | None = None, broken: bool = False, policies: bool = False
) -> tuple[dict[str, Any], Rows]:  # fmt: skip
    """(settings, requests); `far`: with a pool or without, else either; `broken`: with faults in some; `policies`: beside a
    pool, with KV policies."""
    settings: dict[str, Any] = {"scheduler": draw(SCHEDULER)}
    tokens = draw(st.sampled_from([16, 16, 16, 8, 48]))  # of a block; tiers below are in blocks
    settings["kv.block"] = f"{tokens} tokens"
    size = tokens / 16
    selection = draw(st.sampled_from(["dense", "dense", "budget", "pages", "pages"]))
    if selection == "budget":
        settings["kv.selection"] = {"kind": "budget", "tokens": f"{draw(st.sampled_from([1, 16, 50]))} tokens"}
    elif selection == "pages":
        settings["kv.selection"] = draw(PAGES)
    if far is None:
        far = draw(st.integers(0, 3)) > 0
    if not far:
        settings["kv.l1"] = blocks(size * draw(st.integers(1, 20)))
        return settings, draw(ROWS)
    settings |= pool(
        l1=size * draw(st.integers(1, 12)), l3=size * draw(st.sampled_from([1, 4, 8, 12, 40])),
        l2=size * draw(st.sampled_from([1, 2, 4, 16])), link=draw(st.sampled_from(["0.05 GB/s", "2 GB/s", "20 GB/s"])),
    )  # fmt: skip
    settings["kv.burst"] = draw(st.sampled_from(["1 KiB", "4 KiB", "16 KiB"]))
    settings["kv.placement"] = draw(PLACEMENT)
    settings["prefetch"] = draw(PREFETCH)
    codec = draw(CODEC)
    if codec:
        settings["kv.codec"] = codec
    if broken and draw(st.integers(0, 2)) == 0:
        settings["faults"] = draw(st.lists(FAULT, min_size=1, max_size=2))
    rows = draw(ROWS)
    if policies:
        if draw(st.booleans()):  # or which store every token alike
            settings |= draw(ALIKE)
            return settings, rows
        if selection == "pages":
            del settings["kv.selection"]
        settings["kv.placement"] = {"eviction": draw(st.sampled_from(["split", "lru"]))}
        if settings["prefetch"]["predictor"] == "history":
            settings["prefetch"] = {"predictor": "next_layer", "depth": 2}
        for name, which in draw(POLICIES).items():
            settings[name] = {"groups": draw(LAYOUTS)} if name == "kv.layout" else CHOICES[name][which]
    return settings, rows
