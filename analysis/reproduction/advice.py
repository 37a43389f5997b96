"""What the regime atlas says to a buyer: for each cell the fastest way on the same GPUs, the cheapest token, and by how much.

More GPUs at equal cost are a comparison of tokens per dollar; `atlas.py` says how, and what each way is.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pandas as pd

from analysis.reproduction.atlas import GPUS, LINKS, ON_LINK, WAYS

LEVEL = 0.02  # ways this close to the best are level with it


def advice(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each model, context, read and link: which way is fastest on the same GPUs, which has the cheapest token.

    `pool_gain`, `host_gain`: tokens/s over those of as many GPUs alone. `pool_value`, `host_value`: tokens per dollar over
    the best that GPUs do, more of them among them. inf: GPUs cannot serve it; nan: nor can this. `board_worth_usd`: the price
    of a board, without memory, at which the pool's tokens cost as much as theirs; below 0: not even for nothing. Ways within
    2 % of the best are level, and the simplest is named: GPUs alone, prefixes in HBM, more GPUs, the host's memory, boards.
    """
    found = []
    for (model, context, reads), part in rows.groupby(["model", "context_tokens", "reads"], sort=False):
        for link in (link for link in LINKS if link in set(part["link"])):
            ways = {row["way"]: row for _, row in part.iterrows() if row["way"] not in ON_LINK or row["link"] == link}
            rate = {way: row["output_tokens_per_s"] for way, row in ways.items()}
            value = {way: 1.0 / row["usd_per_million_output_tokens"] if rate[way] else 0.0 for way, row in ways.items()}
            same = {way: one for way, one in rate.items() if way != "more_gpus"}
            gpus = max(one for way, one in value.items() if way in GPUS)
            found.append(
                {
                    "model": model, "context_tokens": context, "reads": reads, "link": link,
                    "fastest": _best(same), "cheapest": _best(value),
                    "pool_gain": _over(rate["pool"], rate["gpu_only"]), "host_gain": _over(rate["host"], rate["gpu_only"]),
                    "pool_value": _over(value["pool"], gpus), "host_value": _over(value["host"], gpus),
                    "board_worth_usd": _worth(ways["pool"], gpus), "alone_tokens_per_s": rate["gpu_only"],
                    "pool_share": ways["pool"]["pool_share"],
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def _best(found: dict[str, float]) -> str:
    """The simplest way that is level with the best, `none` if nothing serves it."""
    most = max(found.values())
    return next((way for way in WAYS if found.get(way, 0.0) > 0 and found[way] >= (1.0 - LEVEL) * most), "none")


def _worth(pool: pd.Series[Any], gpus: float) -> float:
    """Cost is linear in the price of boards; `gpus` are tokens per dollar without them."""
    boards = float(pool["boards_usd_per_million"])
    if not boards or not gpus:
        return inf if boards else nan
    return float(pool["board_usd"]) * (1.0 + (1.0 / gpus - float(pool["usd_per_million_output_tokens"])) / boards)


def _over(one: float, other: float) -> float:
    if other:
        return one / other
    return inf if one else nan


def sentences(found: pd.DataFrame) -> list[str]:
    """What a buyer reads first."""
    lines = []
    for reads, part in found.groupby("reads", sort=False):
        fast, cheap = ((part[column] == "pool").sum() for column in ("fastest", "cheapest"))
        host, hosts = ((part[column] == "host").sum() for column in ("fastest", "cheapest"))
        alone, gpus = (part[column].isin(GPUS).sum() for column in ("fastest", "cheapest"))
        lines.append(
            f"{str(reads).capitalize()} reads, {len(part)} cells. Fastest on the same GPUs: GPUs with nothing beside them in "
            f"{alone}, host memory in {host}, the pool in {fast}. Cheapest token: GPUs, more of them where needed, in {gpus}, "
            f"host memory in {hosts}, the pool in {cheap}{_largest(part)}."
        )
    unserved = (found["alone_tokens_per_s"] == 0).sum()
    lines.append(f"In {unserved} of {len(found)} cells as many GPUs alone cannot hold even one sequence.")
    return lines


def _largest(part: pd.DataFrame) -> str:
    """Of the cells in which steps or sessions use it, the one where the pool is worth most against more GPUs at equal cost."""
    served = part[(part["pool_value"] < inf) & (part["pool_share"] > 0)].to_dict("records")
    if not served:
        return ""
    best = max(served, key=lambda row: float(row["pool_value"]))
    worth = best["board_worth_usd"]
    price = f"a board at {worth:,.0f} USD without its memory" if worth > 0 else "not even boards for nothing"
    return (
        f". Where it is used, the pool has at most {best['pool_value']:.2f} times the tokens per dollar of more GPUs at equal "
        f"cost ({best['model']}, {best['context_tokens']:,} tokens, {best['link']}); there {price} would make both level"
    )
