"""Figures of the ledger: simulated against reported, and the speed-up by how much of a context a step reads."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import pandas as pd

from analysis.figures.maps import pale
from analysis.figures.style import COLOURS, COLUMN, HATCHES, PAGE, Drawn, Spot, blank, house, line, log_axis, number
from analysis.reproduction.claim import WITHIN, Claim

LEAST = 1e-3  # drawn for a value of nothing


def against_reported(claims: Sequence[Claim]) -> Drawn:
    """A row a claim: simulated over reported, turned so that right of the line is better than reported."""
    rows = []
    for claim in claims:
        for how, value in (("as assumed", claim.assumed.value), ("as measured", claim.measured.value)):
            ratio = value / claim.reported if claim.larger_is_better else claim.reported / max(value, LEAST * claim.reported)
            rows.append({"claim": claim.name, "how": how, "reported": claim.reported, "simulated": value, "ratio": ratio})
    table = pd.DataFrame(rows)
    with house():
        figure, (place,) = blank(PAGE, 0.7 + 0.2 * len(claims))
        spots = []
        for index, (how, marker) in enumerate((("as measured", "o"), ("as assumed", "D"))):
            part = table[table["how"] == how]
            heights = [len(claims) - 1 - index for index in range(len(claims))]
            drawn = [min(max(value, 0.02), 50.0) for value in part["ratio"]]
            place.plot(
                drawn, heights, linestyle="none", marker=marker, color=COLOURS[index], markersize=4.5 - 1.2 * index, label=how,
                markerfacecolor="none" if index else COLOURS[index], zorder=3 + index, gid=f"series:{how}",
            )  # fmt: skip
            for x, y, name, simulated, reported in zip(drawn, heights, part["claim"], part["simulated"], part["reported"]):
                spots.append(Spot(place, x, y, f"{name}, {how}: {number(simulated)} (reported {number(reported)})"))
        place.axvline(1.0, color="black", linewidth=0.8)
        place.axvspan(1.0 - WITHIN, 1.0 + WITHIN, color="#dddddd", linewidth=0, zorder=0)
        place.set_xscale("log")
        place.set_xlim(0.015, 70.0)
        log_axis(place.xaxis, 0.02, 50.0)
        place.set_yticks(range(len(claims)), [_label(claim) for claim in reversed(claims)])
        place.set_xlabel("simulated over reported (times and overheads: reported over simulated)")
        place.legend(loc="lower right")
    caption = (
        "What the simulator gives for each claim, over what is reported; for times and overheads the inverse. "
        f"Band: {100 * WITHIN:.0f} %. As assumed: hardware, codec and predictor as the authors state them. As measured: PCIe "
        "Gen4 and codec as measured, a predictor whose hits were counted. Values beyond 0.02 and 50 are drawn there."
    )
    return Drawn(figure, table, caption, spots)


def _label(claim: Claim) -> str:
    return f"{claim.name.replace('_', ' ')} ({number(claim.reported)} {claim.unit})"


def read_budgets(rows: list[dict[str, Any]], reported: float) -> Drawn:
    """Speed-up in decode against GPUs alone at batch 16, by the tokens of a context that a step may read."""
    table = pd.DataFrame(rows)
    with house():
        figure, (place,) = blank(COLUMN, 2.9)
        spots = []
        for index, (way, part) in enumerate(table.groupby("way", sort=False)):
            place.plot(part["tokens"], part["speed-up"], label=str(way), gid=f"series:{way}", **line(index))
            for x, y in zip(part["tokens"], part["speed-up"]):
                spots.append(Spot(place, x, y, f"{way}: {number(y)} times at {x} tokens"))
        place.axhline(reported, color="black", linewidth=0.8, linestyle="--")
        place.annotate(
            f"reported: {reported:.2f}", (table["tokens"].max(), reported), ha="right", va="bottom", fontsize=6,
            xytext=(0, 1.5), textcoords="offset points",
        )  # fmt: skip
        place.axhline(1.0, color="#888888", linewidth=0.6)
        place.set_xscale("log")
        place.set_yscale("log")
        log_axis(place.xaxis, table["tokens"].min(), table["tokens"].max())
        log_axis(place.yaxis, table["speed-up"].min(), table["speed-up"].max())
        place.set_xlabel("tokens of each context that a step may read")
        place.set_ylabel("decode throughput over GPUs alone (times)")
        figure.legend(loc="outside upper center", ncols=1, fontsize=6)
    caption = (
        "Decode throughput of eight GPUs with the pool at batch 64 over GPUs alone at batch 16, KV of all heads, contexts of "
        "2,048 to 2,304 tokens, by how many of them a step may read; links, ratio and place of decompression as named."
    )
    return Drawn(figure, table, caption, spots)


def atlas_map(found: pd.DataFrame, best: str) -> Drawn:
    """A panel for what a step reads; models up, contexts and links across; the colour says which way is `best` (a column), the
    number what the pool is over GPUs."""
    from matplotlib.patches import Patch, Rectangle

    def face(way: str, index: int) -> str:
        return "#e4e4e4" if way == "none" else pale(COLOURS[index])

    kinds = list(dict.fromkeys(found["reads"]))
    models = list(dict.fromkeys(found["model"]))
    columns = list(dict.fromkeys(zip(found["context_tokens"], found["link"])))
    links = list(dict.fromkeys(found["link"]))
    number_of, title, caption = MAPS[best]
    ways = [way for way in NAMES if way in set(found[best])]
    with house():
        figure, places = blank(PAGE, 0.75 + len(kinds) * (0.35 + 0.17 * len(models)), rows=len(kinds), sharex=True)
        spots = []
        for place, kind in zip(places, kinds):
            part = found[found["reads"] == kind]
            for row in part.to_dict("records"):
                at, up = columns.index((row["context_tokens"], row["link"])), len(models) - 1 - models.index(row["model"])
                index = COLOUR[row[best]]
                colour = face(row[best], index)
                hatch = HATCHES[index] if index else ""
                place.add_patch(Rectangle((at, up), 1, 1, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0.5))
                gain = row[number_of]
                text = "" if gain != gain else "only" if gain == inf else "=" if abs(gain - 1.0) < 0.005 else f"{gain:.2f}"
                place.text(at + 0.5, up + 0.5, text, ha="center", va="center", fontsize=5.4, color="#111111",
                           bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.4})  # fmt: skip
                says = f"{row['model']}, {row['context_tokens']:,} tokens, {row['link']}: fastest {row['fastest']}, "
                says += f"cheapest token {row['cheapest']}; pool: {number(row['pool_gain'])} times the tokens/s of GPUs alone, "
                says += f"{number(row['pool_value'])} times the tokens per dollar of GPUs, more of them among them"
                spots.append(Spot(place, at + 0.5, up + 0.5, says))
            place.set_xlim(0, len(columns))
            place.set_ylim(0, len(models))
            place.set_yticks([index + 0.5 for index in range(len(models))], list(reversed(models)))
            for edge in range(len(links), len(columns), len(links)):
                place.axvline(edge, color="black", linewidth=0.7)
            place.grid(False)
            place.set_title(TITLES.get(kind, str(kind)), fontsize=7, loc="left", pad=2)
        contexts = list(dict.fromkeys(found["context_tokens"]))
        names = [link.replace("pcie-gen", "PCIe ").replace("cxl-", "CXL ").replace("-x16", "") for _, link in columns]
        places[-1].set_xticks([index + 0.5 for index in range(len(columns))], names, fontsize=5.6)
        for index, context in enumerate(contexts):
            middle = (index + 0.5) * len(links) / len(columns)
            places[-1].annotate(f"{context:,} tokens", (middle, 0), xycoords="axes fraction", xytext=(0, -15),
                                textcoords="offset points", ha="center", va="top", fontsize=6.5)  # fmt: skip
        handles = [
            Patch(facecolor=face(way, COLOUR[way]), edgecolor="white", hatch=HATCHES[COLOUR[way]] if COLOUR[way] else "")
            for way in ways
        ]
        names = [NAMES[way] for way in ways]
        figure.legend(handles, names, loc="outside upper center", ncols=len(ways), title=title, title_fontsize=7)
    return Drawn(figure, found, caption, spots)


TITLES = {"dense": "dense reads", "sparse": "sparse reads (1,024 tokens)", "parked": "parked sessions"}
NAMES = {
    "gpu_only": "GPUs alone", "prefix": "prefixes kept in HBM", "more_gpus": "more GPUs", "host": "host memory",
    "pool": "FPGA pool", "none": "nothing serves it",
}  # fmt: skip
COLOUR = {"gpu_only": 0, "host": 1, "prefix": 2, "pool": 3, "more_gpus": 4, "none": 5}  # the same in both maps
LEGEND = "ways within 2 % are level, and the simplest is named"
MAPS = {  # column -> what the numbers are, title of the legend, caption
    "fastest": (
        "pool_gain", "fastest on the same GPUs",
        (f"What is fastest on the same GPUs, by model, context, link and what a decode step reads; {LEGEND}. Numbers: output "
        "tokens/s with the pool over as many GPUs alone (=: the same; only: these GPUs alone cannot hold one sequence, more "
        "of them may). Host and boards have the same memory for each GPU "
        "and run the batch that serves most."),
    ),
    "cheapest": (
        "pool_value", "cheapest token",
        (f"Which way has the cheapest token, more GPUs among them; {LEGEND}. Numbers: tokens per dollar with the pool over the "
        "best that GPUs do with nothing beside them, so that above 1 the pool beats more GPUs at equal cost. Prices are the "
        "catalogue's; what a board may cost is in the table."),
    ),
}  # fmt: skip
