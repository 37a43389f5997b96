"""Regime atlas: for a model, a context, what a step reads and a link, which memory for KV is worth it.

Every cell is the same load on the same GPUs, in these ways:

    gpu_only    what HBM holds; what does not fit waits, or can never be served
    prefix      the same, and what earlier turns left in HBM is not computed again (parked sessions only)
    host        KV in the memory of the GPUs' own host over their PCIe ports: no compression, no boards
    pool        an FPGA board for each GPU, INT8 at the measured ratio on the board

and three ways of reading KV:

    dense       a decode step reads all of the context. `REQUESTS` at once, `OUTPUT` tokens each; far pages a layer ahead
    sparse      it reads at most 1,024 tokens of each sequence, whichever way is asked; else the same
    parked      `SESSIONS` of `TURNS` turns, `THINK` apart, the context that of the last turn: KV is read once when its session
                comes back. Running sequences are in HBM; `host` and `pool` keep what leaves it

More GPUs at equal cost are asked for by cost: replicas of the GPU-only system cost in proportion to their tokens, so a way
beats more GPUs where its cost per token is below that of `gpu_only`. The board is one that can be built, made generous: 256 GB
behind it at its HBM's bandwidth, DMA and engines for 128 GB/s, at its price. Links are those of the GPUs' ports and of the
boards; for `host` the port counts alone. Contexts beyond what a model was trained for are run all the same: the question is
memory, not quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import pandas as pd

from analysis.reproduction.claim import Rows
from simulator import Scenario, simulate

REQUESTS, OUTPUT = 48, 256
SESSIONS, TURNS, THINK, ANSWER = 32, 4, "10 s", 128
CONTEXTS = (2048, 8192, 32768, 131072)  # tokens at the end
LINKS = ("pcie-gen4-x16", "pcie-gen5-x16", "cxl-3.0-x16")
READS: dict[str, dict[str, Any]] = {
    "dense": {"selection": {"kind": "dense"}},
    "sparse": {"selection": {"kind": "budget", "tokens": "1024 tokens"}},
    "parked": {"block": "256 tokens"},
}
WAYS = ("gpu_only", "prefix", "host", "pool")  # the simplest first
ON_LINK = ("host", "pool")
RATIO = 1.94  # INT8 with scales on keys and values: `speckvsim codec traces/python_reference/kv_layer3.npy`


@dataclass(frozen=True)
class System:
    label: str
    model: str
    gpu: str
    count: int
    weights: str = "bf16"


SYSTEMS = (
    System("7B, all heads", "llama-2-7b", "h100-80gb-sxm", 1),
    System("8B, grouped", "llama-3.1-8b", "h100-80gb-sxm", 1),
    System("70B, all heads", "llama-2-70b-mha", "h100-80gb-sxm", 4),
    System("70B, grouped", "llama-3.1-70b", "h100-80gb-sxm", 4),
    System("405B, grouped", "llama-3.1-405b", "h200-141gb-sxm", 8, "fp8"),
    System("671B, latent", "deepseek-v3", "h200-141gb-sxm", 8, "fp8"),
)


@dataclass(frozen=True)
class Cell:
    system: System
    context: int
    reads: str
    link: str
    way: str

    @property
    def scenario(self) -> Scenario:
        system = self.system
        cluster: dict[str, Any] = {"gpus": {"type": system.gpu, "count": system.count, "link": self.link}}
        kv: dict[str, Any] = dict(READS[self.reads])
        prefetch: dict[str, Any] = {}
        if self.reads == "parked" and self.way != "gpu_only":
            kv["sharing"] = {"kind": "prefix"}
        if self.way in ON_LINK:
            kv |= {"l2": "2 GiB", "placement": {"eviction": "lru" if self.reads == "parked" else "split"}}
            prefetch = {"predictor": "next_layer"}
        if self.way == "host":
            mover = {"type": "h100-pcie-gen5", "method": "copy"}
            cluster["kv_pool"] = {"board": "host-dram", "link": "ideal", "copy_engine": mover}
        if self.way == "pool":
            board = {"type": "agilex-7-buildable", "memory": "256 GB", "dma_bandwidth": "128 GB/s", "engines": 5}
            cluster["kv_pool"] = {"board": board, "count": system.count, "link": self.link}
            kv["codec"] = {"ratio": RATIO, "compress_at": "fpga", "decompress_at": "fpga"}
        values = {
            "name": "atlas",
            "seed": 1,
            "workload": {"synthetic": self.load},
            "model": {"type": system.model, "weights": system.weights, "max_context": f"{2 * max(CONTEXTS)} tokens"},
            "cluster": cluster,
            "kv": kv,
            "prefetch": prefetch,
            "scheduler": {"engine": "vllm-v1", "max_batch": 256, "token_budget": "8192 tokens"},
        }
        return Scenario.from_dict(values, base_dir=".")

    @property
    def load(self) -> dict[str, Any]:
        """Requests, or turns that end with this context."""
        if self.reads != "parked":
            return _at_once(REQUESTS, self.context - OUTPUT, OUTPUT)
        sessions = {"turns": TURNS, "spread": "fixed", "think": THINK, "think_cv": 0}
        return _at_once(SESSIONS * TURNS, self.context // TURNS - ANSWER, ANSWER) | {"sessions": sessions}

    def row(self) -> dict[str, Any]:
        """Rates are zero where a request of this size cannot be served."""
        summary = simulate(self.scenario).summary
        rate, cost = summary["throughput"]["output_tokens_per_s"], summary["cost"]["usd_per_million_output_tokens"]
        if summary["requests"]["rejected"]:
            rate = 0.0
        return {
            "model": self.system.label, "gpus": f"{self.system.count} x {self.system.gpu}", "context_tokens": self.context,
            "reads": self.reads, "link": self.link, "way": self.way, "output_tokens_per_s": rate or 0.0,
            "usd_per_million_output_tokens": cost, "mean_batch": summary["simulation"]["mean_batch"],
            "pool_share": summary["kv_access"]["l3_read_share"] or 0.0, "bound_by": summary["bound_by"],
        }  # fmt: skip


def _at_once(requests: int, prompt: int, output: int) -> dict[str, Any]:
    lengths = {"input": prompt, "output": output}
    fixed = {name: {"dist": "fixed", "tokens": f"{tokens} tokens"} for name, tokens in lengths.items()}
    return {"requests": requests, "arrivals": {"process": "at_once"}, **fixed}


def cells() -> Iterator[Cell]:
    """A cell that the link cannot change is run with the first one only."""
    for system in SYSTEMS:
        for context in CONTEXTS:
            for reads in READS:
                for way in (way for way in WAYS if way != "prefix" or reads == "parked"):
                    for link in LINKS if way in ON_LINK else LINKS[:1]:
                        yield Cell(system, context, reads, link, way)


def atlas(told: Callable[[float, str], None], wanted: list[Cell] | None = None, jobs: int = -1) -> pd.DataFrame:
    """A row a cell, in order. Processes share the work; `told` hears (share done, text)."""
    from joblib import Parallel, delayed

    wanted = list(cells()) if wanted is None else wanted
    rows: Rows = []
    work = Parallel(n_jobs=jobs, return_as="generator")(delayed(Cell.row)(cell) for cell in wanted)
    for row in work:
        rows.append(row)
        told(len(rows) / len(wanted), f"atlas: {len(rows)} of {len(wanted)} runs")
    return pd.DataFrame(rows)


def advice(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each model, context, read and link: which way is fastest on the same GPUs, which has the cheapest token.

    `pool_gain`: tokens/s of the pool over those of GPUs alone (inf: alone they cannot serve it; nan: nor can the pool). Ways
    within 2 % of the best are level, and the simplest is named: GPUs alone before prefixes in HBM before the host's memory
    before boards.
    """
    found = []
    for (model, context, reads), part in rows.groupby(["model", "context_tokens", "reads"], sort=False):
        for link in (link for link in LINKS if link in set(part["link"])):
            ways = {row["way"]: row for _, row in part.iterrows() if row["way"] not in ON_LINK or row["link"] == link}
            rate = {way: row["output_tokens_per_s"] for way, row in ways.items()}
            served = {way: row["usd_per_million_output_tokens"] for way, row in ways.items() if rate[way] > 0}
            fastest = next((way for way in WAYS if rate.get(way, 0.0) > 0 and rate[way] >= 0.98 * max(rate.values())), "none")
            cheapest = next((way for way in WAYS if way in served and served[way] <= min(served.values()) / 0.98), "none")
            found.append(
                {
                    "model": model, "context_tokens": context, "reads": reads, "link": link, "fastest": fastest,
                    "cheapest": cheapest, "pool_gain": _gain(rate, "pool"), "host_gain": _gain(rate, "host"),
                    "alone_tokens_per_s": rate["gpu_only"], "pool_share": ways["pool"]["pool_share"],
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def _gain(rate: dict[str, float], way: str) -> float:
    if rate["gpu_only"]:
        return rate[way] / rate["gpu_only"]
    return inf if rate[way] else nan


def sentences(found: pd.DataFrame) -> list[str]:
    """What a buyer reads first."""
    total = len(found)
    lines = []
    for reads, part in found.groupby("reads", sort=False):
        fast, cheap = ((part[column] == "pool").sum() for column in ("fastest", "cheapest"))
        host, alone = (part["fastest"].isin(ways).sum() for ways in (["host"], ["gpu_only", "prefix"]))
        lines.append(
            f"{str(reads).capitalize()} reads: of {len(part)} cells the pool is fastest in {fast} and has the cheapest token "
            f"in {cheap}; host memory is fastest in {host}, GPUs with nothing beside them in {alone}."
        )
    unserved = (found["alone_tokens_per_s"] == 0).sum()
    lines.append(f"In {unserved} of {total} cells GPUs alone cannot hold even one sequence.")
    return lines
