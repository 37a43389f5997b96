"""The ledger in words: rows of a table, and the content of its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.figures.style import number
from analysis.report.content import cell, empty, table
from analysis.reproduction.atlas import sentences
from analysis.reproduction.claim import PAPER, Claim

LEGEND = (
    "Each claim is simulated twice: under the authors' assumptions, and with links and codec as measured and a predictor whose "
    "hits were counted. Most reported values are read in notes on the full text and are unverified. A claim that does not "
    "follow here may still have been observed on a system whose workload and settings are not reported."
)


def short(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Rows of the table on a terminal."""
    return [
        {
            "claim": claim.name,
            "reported": f"{number(claim.reported)} {claim.unit}",
            "as assumed": number(claim.assumed.value),
            "as measured": number(claim.measured.value),
            "verdict": claim.verdict,
            "it would hold": claim.regime.text,
        }
        for claim in claims
    ]


def content(claims: Sequence[Claim], advice: pd.DataFrame) -> dict[str, Any]:
    """Of `analysis.report.page`."""
    counted = Counter(claim.verdict for claim in claims)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common())
    columns = ["claim", "reported", "trust", "as assumed", "as measured", "unit", "verdict"]
    rows = [
        [
            claim.claim, cell(claim.reported, claim.unit), claim.trust, cell(claim.assumed.value, claim.unit),
            cell(claim.measured.value, claim.unit), claim.unit, claim.verdict,
        ]
        for claim in claims
    ]  # fmt: skip
    ledger = table("Ledger", columns, rows, "Verdicts are a rule on the numbers: within 10 % of the reported value, or better.")
    how = table(
        "How, and where it would hold", ["claim", "as assumed", "as measured", "it would hold", "source"],
        [[claim.name, claim.assumed.text, claim.measured.text, claim.regime.text, claim.source] for claim in claims],
    )  # fmt: skip
    behind = [
        table(title, list(rows[0]), [[cell(value, "") for value in row.values()] for row in rows])
        for claim in claims
        for title, rows in claim.tables.items()
    ]
    findings = [
        f"{claim.name.replace('_', ' ').capitalize()}: {claim.contradiction}" for claim in claims if claim.contradiction
    ]
    findings += sentences(advice)
    atlas = table(
        "Regime atlas", list(advice.columns), [[cell(value, "") for value in row] for row in advice.itertuples(index=False)],
        "The fastest way on the same GPUs, and the one with the cheapest token (more GPUs at equal cost are GPUs alone there).",
    )  # fmt: skip
    return empty("The claims of CXL-SpecKV, simulated", "Claims ledger") | {
        "sentences": [f"{PAPER}. {len(claims)} claims: {verdicts}.", LEGEND],
        "findings": findings,
        "tables": [ledger, how, atlas, *behind],
        "provenance": [{"name": "made by", "value": "speckvsim reproduce"}],
    }  # fmt: skip
