"""Regime atlas: for a model, a context, what a step reads and a link, which memory for KV is worth it.

Every cell is the same load, served in these ways:

    gpu_only    what HBM holds; what does not fit waits, or can never be served
    prefix      the same, and what earlier turns left in HBM is not computed again (parked sessions only)
    more_gpus   twice the GPUs with nothing beside them (parked: with prefixes kept): one replica of up to eight, else two
    host        KV in the memory of the GPUs' own host over their PCIe ports: no compression, no boards
    pool        an FPGA board for each GPU, INT8 on the board at the ratio that the codec has on keys and values of a model

and three ways of reading KV:

    dense       a decode step reads all of the context. `REQUESTS` at once, `OUTPUT` tokens each; far pages a layer ahead
    sparse      it reads at most 1,024 tokens of each sequence, whichever way is asked; else the same
    parked      `SESSIONS` of `TURNS` turns, `THINK` apart, the context that of the last turn: KV is read once when its session
                comes back. Running sequences are in HBM; `host` and `pool` keep what leaves it

What far memory can hold is not always worth a place in the batch, since every step reads it over the link. So for `host` and
`pool` several limits of the batch are run, from what HBM holds to all that fit, and the best counts, as an engineer would set
it. `fastest` compares the ways on the same GPUs. More GPUs at equal cost are compared by cost: replicas cost in proportion to
their tokens, and `more_gpus` has what a larger HBM brings beyond that, so a pool or a host beats more GPUs at equal cost where
its tokens per dollar exceed those of `gpu_only`, `prefix` and `more_gpus` (`pool_value`, `host_value` above 1).

Host and boards have the same memory, `MEMORY` for each GPU at the same price, so that what tells them apart is the link, the
codec and the price of boards. Four GPUs share a socket of the host and its memory channels; a replica pays for its GPUs' share
of a host of eight. The board is one that can be built, made generous: its memory at its HBM's bandwidth, DMA and engines for
128 GB/s. Links are those of the GPUs' ports and of the boards; for `host` the port counts alone. Contexts beyond what a model
was trained for are run all the same: the question is memory, not quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from analysis.reproduction.claim import Rows
from analysis.reproduction.world import TENSOR
from analysis.reproduction.world import scenario as priced
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
WAYS = ("gpu_only", "prefix", "more_gpus", "host", "pool")  # the simplest first
GPUS = WAYS[:3]  # nothing but GPUs
ON_LINK = WAYS[3:]
MEMORY = 256  # GB for each GPU, of the host or of boards
SOCKET = 4  # GPUs of a socket
YEAR = 365 * 86400.0  # s
NODE = 8  # GPUs of a host, at most in one replica
MOST = 256  # sequences at a time
BEYOND = (1.0, 1.25, 1.5, 2.0, 3.0)  # times what HBM holds: limits of the batch that are tried
ON_BOARD = {"compress_at": "fpga", "decompress_at": "fpga"}


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

    def scenario(self, batch: int) -> Scenario:
        """With at most that many sequences at a time."""
        system = self.system
        cluster, kv, prefetch = self._cluster, dict(READS[self.reads]), {}
        if self.reads == "parked" and self.way != "gpu_only":
            kv["sharing"] = {"kind": "prefix"}
        if self.way in ON_LINK:
            kv |= {"l2": "2 GiB", "placement": {"eviction": "lru" if self.reads == "parked" else "split"}}
            prefetch = {"predictor": "next_layer"}
        if self.way == "pool":
            kv["codec"] = {"ratio": "measured", "measure": {"tensors": str(TENSOR)}, **ON_BOARD}
        values = {
            "name": "atlas",
            "seed": 1,
            "workload": {"synthetic": self.load},
            "model": {"type": system.model, "weights": system.weights, "max_context": f"{2 * max(CONTEXTS)} tokens"},
            "cluster": cluster,
            "kv": kv,
            "prefetch": prefetch,
            "scheduler": {"engine": "vllm-v1", "max_batch": batch, "token_budget": "8192 tokens"},
            "cost": self._host_share,
        }
        return Scenario.from_dict(values, base_dir=".")

    @property
    def _cluster(self) -> dict[str, Any]:
        count, link = self.system.count, self.link
        if self.way == "more_gpus":
            replicas = 2 if 2 * count > NODE else 1
            gpus = {"type": self.system.gpu, "count": 2 * count // replicas, "link": link}
            routing = {"routing": "session_sticky"} if replicas > 1 and self.reads == "parked" else {}
            return {"gpus": gpus, "replicas": replicas} | routing
        cluster: dict[str, Any] = {"gpus": {"type": self.system.gpu, "count": count, "link": link}}
        if self.way == "host":
            sockets = -(-count // SOCKET)
            memory = {"type": "host-dram", "memory": f"{MEMORY * count / sockets} GB"}
            mover = {"type": "h100-pcie-gen5", "method": "copy"}
            cluster["kv_pool"] = {"board": memory, "count": sockets, "link": "ideal", "copy_engine": mover}
        if self.way == "pool":
            board = {"type": "agilex-7-buildable", "memory": f"{MEMORY} GB", "dma_bandwidth": "128 GB/s", "engines": 5}
            cluster["kv_pool"] = {"board": board, "count": count, "link": link}
        return cluster

    @property
    def _host_share(self) -> dict[str, Any]:
        """A replica pays for its GPUs' part of a host of eight, not for a whole one."""
        gpus = min(NODE, self.system.count * (2 if self.way == "more_gpus" else 1))
        price, power = host_of_eight()
        return {"host_price": f"{price * gpus / NODE} USD", "host_power": f"{power * gpus / NODE} W"}

    @property
    def load(self) -> dict[str, Any]:
        """Requests, or turns that end with this context."""
        if self.reads != "parked":
            return _at_once(REQUESTS, self.context - OUTPUT, OUTPUT)
        sessions = {"turns": TURNS, "spread": "fixed", "think": THINK, "think_cv": 0}
        return _at_once(SESSIONS * TURNS, self.context // TURNS - ANSWER, ANSWER) | {"sessions": sessions}

    def row(self) -> dict[str, Any]:
        """Of the batch limit that serves most. Rates are zero where a request of this size cannot be served."""
        found = [self.run(MOST)]
        if self.way in ON_LINK and self.reads != "parked" and found[0]["pool_share"]:
            for limit in self._limits():
                found.append(self.run(limit))
                if len(found) > 2 and found[-1]["output_tokens_per_s"] < found[-2]["output_tokens_per_s"]:
                    break  # beyond the best, more at a time serve ever less
        return max(found, key=lambda row: row["output_tokens_per_s"])

    def _limits(self) -> list[int]:
        """Sequences that HBM holds, and up to three times of them."""
        resolved = self.scenario(MOST).resolved
        tokens = resolved.l1_per_gpu / resolved.block_bytes_per_gpu * resolved.kv.block_tokens
        fit = max(1.0, tokens / self.context)
        return sorted({int(times * fit) for times in BEYOND if times * fit < REQUESTS})

    def run(self, batch: int) -> dict[str, Any]:
        """With at most that many sequences at a time."""
        scenario = self.scenario(batch)
        summary = simulate(scenario).summary
        rate, cost = summary["throughput"]["output_tokens_per_s"], summary["cost"]["usd_per_million_output_tokens"]
        rate = 0.0 if summary["requests"]["rejected"] else rate or 0.0
        return {
            "model": self.system.label, "gpus": f"{self.system.count} x {self.system.gpu}", "context_tokens": self.context,
            "reads": self.reads, "link": self.link, "way": self.way, "output_tokens_per_s": rate,
            "usd_per_million_output_tokens": cost, **_boards(scenario, rate), "batch_limit": batch,
            "mean_batch": summary["simulation"]["mean_batch"],
            "pool_share": summary["kv_access"]["l3_read_share"] or 0.0, "bound_by": summary["bound_by"],
        }  # fmt: skip


def _boards(scenario: Scenario, rate: float) -> dict[str, float]:
    """USD of one board without its memory, and USD per million tokens of all of them."""
    pool, cost = scenario.resolved.pool, scenario.resolved.cost
    if pool is None:
        return {"board_usd": 0.0, "boards_usd_per_million": 0.0}
    each_second = pool.boards * pool.board.price / (cost.years * cost.utilization * YEAR)
    return {"board_usd": pool.board.price, "boards_usd_per_million": each_second / rate * 1e6 if rate else 0.0}


@cache
def host_of_eight() -> tuple[float, float]:
    """USD and W of the server of eight GPUs without them, in the price list that everything is priced by."""
    cost = priced().resolved.cost
    return cost.host_price, cost.host_power


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
