"""The report as one HTML file: no network, light and dark, phone and print; all text from files is escaped.

A run: headlines with intervals, what bounds it, figures, the resolved scenario with sources. Runs: side by side, paired by
request where they had the same ones. A sweep: what its analyses say, figures, the table of points, the study. Scripts and
styles are inside the file, and a content security policy forbids everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.figures import draw
from analysis.figures.results import Run, Sweep
from analysis.figures.style import Drawn
from analysis.files import filled
from analysis.report.runs import run_content, runs_content
from analysis.report.svg import inline
from analysis.report.sweeps import sweep_content

LARGEST = 2_900_000  # bytes of the file
MOST_FIGURES = 30


def write(results: Sweep | Sequence[Run], file: Path) -> Path:
    return write_page(content_of(results), draw.figures_of(results), file)


def write_page(content: dict[str, Any], figures: dict[str, Drawn], file: Path) -> Path:
    """Write a page beside its place under another name, then rename it."""
    text = render(content, figures)
    with filled(file.parent) as aside:
        (aside / file.name).write_text(text, encoding="utf-8")
    return file


def content_of(results: Sweep | Sequence[Run]) -> dict[str, Any]:
    if isinstance(results, Sweep):
        return sweep_content(results)
    return run_content(results[0]) if len(results) == 1 else runs_content(results)


def page(results: Sweep | Sequence[Run]) -> str:
    """The report."""
    return render(content_of(results), draw.figures_of(results))


def render(content: dict[str, Any], figures: dict[str, Drawn]) -> str:
    """The HTML; rows of the largest table are left out, and said to be, until the file is small enough."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # every template is HTML, whatever it is called
    environment = Environment(
        loader=PackageLoader("analysis.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    content = content | {"figures": _figures(figures)}
    template = environment.get_template("page.html.j2")
    while True:
        text = template.render(**content)
        if len(text.encode("utf-8")) <= LARGEST:
            return text
        longest = max(content["tables"], key=lambda table: len(table["rows"]), default=None)
        if longest is not None and len(longest["rows"]) > 20:
            longest["rows"] = longest["rows"][: len(longest["rows"]) // 2]
            longest["note"] = f"The first {len(longest['rows'])} rows; all are in the results folder."
        elif content["figures"]:
            content["figures"].pop()
        else:
            return text


def _figures(drawn: dict[str, Drawn]) -> list[dict[str, Any]]:
    found = []
    for name, figure in list(drawn.items())[:MOST_FIGURES]:
        svg, series = inline(figure, name)
        wide = figure.figure.get_figwidth() > 4.5
        found.append({"name": name, "svg": svg, "series": series, "caption": figure.caption, "wide": wide})
    return found
