"""The claims ledger of CXL-SpecKV, as `speckvsim reproduce` makes it: every number in it is computed when it is made.

    serving      throughput, tokens/s, energy, cost-performance      latency      decode step, overheads, hit rates, access time
    capacity     batch, memory cost, bandwidth                       compression  the ratio and its stages
    scaling      efficiency at eight GPUs

and the regime atlas (`atlas.py`): where a pool, host memory or GPUs alone are the better choice.

Not simulated: perplexity and task accuracy (no weights are run), FPGA area and clock (no synthesis).
The folder gets `ledger.json`, `ledger.csv`, `atlas.csv` (every run of the atlas), `advice.csv` (a row a cell), the figures with
their data, and `ledger.html`, all put in place at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.figures.style import Drawn, save
from analysis.files import filled
from analysis.report.page import render
from analysis.reproduction import advice as buyers
from analysis.reproduction import atlas as regimes
from analysis.reproduction import capacity, compression, latency, scaling, serving
from analysis.reproduction.claim import Claim
from analysis.reproduction.figures import against_reported, atlas_map, read_budgets
from analysis.reproduction.text import content
from analysis.reproduction.world import Runs

PARTS = (serving, latency, capacity, compression, scaling)
CLAIMS_SHARE = 0.4  # of the time
FIGURES = "figures"  # their folder
ROUNDS = 12  # of each bisection
POINTS = [16, 32, 64, 128, 256, 512, 1024, 2304]  # tokens a step may read, in the figure

Report = Callable[[float, str], None]


@dataclass
class Ledger:
    claims: list[Claim]
    atlas: pd.DataFrame  # a row a run
    advice: pd.DataFrame  # a row a cell
    figures: dict[str, Drawn]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [claim.row() for claim in self.claims]


def ledger(report: Report = lambda done, text: None, rounds: int = ROUNDS) -> Ledger:
    """Runs everything; `report` hears (share done, text)."""
    done = 0.0
    runs = Runs(lambda text: report(done, f"claims: {text}"))
    claims: list[Claim] = []
    for index, part in enumerate(PARTS):
        done = CLAIMS_SHARE * index / (len(PARTS) + 1)
        claims += part.claims(runs, rounds)
    done = CLAIMS_SHARE * len(PARTS) / (len(PARTS) + 1)
    curves = serving.speed_up_curves(runs, POINTS)
    rows = regimes.atlas(lambda share, text: report(CLAIMS_SHARE + (1.0 - CLAIMS_SHARE) * share, text))
    advice = buyers.advice(rows)
    figures = {
        "against_reported": against_reported(claims),
        "read_budgets": read_budgets(curves, serving.AFTER / serving.BEFORE),
        "atlas": atlas_map(advice, "fastest"),
        "atlas_cost": atlas_map(advice, "cheapest"),
    }
    return Ledger(claims, rows, advice, figures)


def write(found: Ledger, folder: Path) -> list[Path]:
    """All files or none; those of an earlier ledger are replaced."""
    tables = {"ledger": pd.DataFrame(found.rows), "atlas": found.atlas, "advice": found.advice}
    document = {
        "rows": found.rows,
        "atlas": json.loads(found.advice.replace(inf, None).to_json(orient="records")),
        "tables": {claim.name: claim.tables for claim in found.claims if claim.tables},
    }
    with filled(folder) as aside:
        (aside / FIGURES).mkdir()
        made = [file for name, figure in found.figures.items() for file in save(figure, aside / FIGURES, name)]
        for name, table in tables.items():
            made.append(aside / f"{name}.csv")
            table.to_csv(made[-1], index=False, lineterminator="\n")
        made.append(aside / "ledger.json")
        made[-1].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        made.append(aside / "ledger.html")
        made[-1].write_text(render(content(found.claims, found.advice), found.figures), encoding="utf-8")
        names = [file.relative_to(aside) for file in made]
    return [folder / name for name in names]
