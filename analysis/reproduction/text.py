"""The ledger in words: rows of a table, and the content of its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.figures.style import number
from analysis.report.content import cell, empty, table
from analysis.reproduction.advice import sentences
from analysis.reproduction.claim import PAPER, WITHIN, Claim

LEGEND = (
    "Each claim is simulated twice: under the authors' assumptions, and with links and codec as measured and a predictor whose "
    "hits were counted. Most reported values are read in notes on the full text and are unverified. A claim that does not "
    "follow here may still have been observed on a system whose workload and settings are not reported."
)


VERDICTS = f"Verdicts are a rule on the numbers: within {100 * WITHIN:.0f} % of the reported value, or better."


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


COLUMNS = {  # of the atlas
    "model": "model", "context_tokens": "context (tokens)", "reads": "reads", "link": "link",
    "fastest": "fastest on the same GPUs", "cheapest": "cheapest token", "pool_gain": "pool, tokens/s over GPUs alone",
    "host_gain": "host, tokens/s over GPUs alone", "pool_value": "pool, tokens per dollar over GPUs",
    "host_value": "host, tokens per dollar over GPUs", "board_worth_usd": "a board may cost (USD)",
    "alone_tokens_per_s": "GPUs alone (tokens/s)", "pool_share": "share of KV reads from the pool",
}  # fmt: skip
ATLAS = (
    "Ways within 2 % are level, and the simplest is named. Tokens per dollar are over the best that GPUs do with nothing "
    "beside them, more of them among them: above 1, a way beats more GPUs at equal cost. A board may cost: without its "
    "memory, for the pool to be level with them; below 0, not even for nothing. Infinite: as many GPUs alone cannot serve it."
)


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
    ledger = table("Ledger", columns, rows, VERDICTS)
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
    atlas = table(
        "Regime atlas", [COLUMNS[name] for name in advice.columns],
        [[cell(value, "") for value in row] for row in advice.itertuples(index=False)], ATLAS,
    )  # fmt: skip
    return empty("The claims of CXL-SpecKV, simulated", "Claims ledger") | {
        "sentences": [f"{PAPER}. {len(claims)} claims: {verdicts}.", LEGEND, *sentences(advice)],
        "findings": findings,
        "tables": [ledger, how, atlas, *behind],
        "provenance": [{"name": "made by", "value": "speckvsim reproduce"}],
    }  # fmt: skip
