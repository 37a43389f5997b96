"""A drawn figure as inline SVG of a page: text as text, black as the page's colour, places that show their value.

Artists named `series:NAME` become groups of class `series`, which the page can hide. Ids get the figure's name, so that
figures of one page do not share any.
"""

from __future__ import annotations

import re
from html import escape, unescape
from io import StringIO

from analysis.figures.style import UNDATED, Drawn, house

MOST_SPOTS = 1200
RADIUS = 6.0  # points


def inline(drawn: Drawn, name: str) -> tuple[str, list[str]]:
    """(SVG, names of the series that can be hidden)."""
    from matplotlib import rc_context

    text = StringIO()
    with house(), rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn.figure.savefig(text, format="svg", metadata=UNDATED["svg"], transparent=True)
    body = text.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(name)}"', 1)
    body = re.sub(r'id="series:([^"]*)"', r'class="series" data-series="\1"', body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    body = body.replace("#000000", "currentColor")
    series = list(dict.fromkeys(map(unescape, re.findall(r'data-series="([^"]*)"', body))))
    end = body.rindex("</svg>")
    return body[:end] + _spots(drawn) + "</svg>", series


def _spots(drawn: Drawn) -> str:
    """Unseen discs, smaller where they are many; their text is shown by the page."""
    figure = drawn.figure
    points = 72.0 / figure.dpi
    height = figure.get_figheight() * 72.0
    every = max(1, -(-len(drawn.spots) // MOST_SPOTS))
    found = []
    for spot in drawn.spots[::every]:
        x, y = spot.axes.transData.transform((spot.x, spot.y)) * points
        if x == x and y == y:
            tip = escape(spot.text, quote=True)
            found.append(f'<circle class="spot" cx="{x:.1f}" cy="{height - y:.1f}" r="{RADIUS:g}" data-tip="{tip}"/>')
    return "".join(found)
