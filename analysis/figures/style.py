"""One look for all figures: widths, colours, lines, hatches, numbers with units; files that are the same bytes each time.

Widths are those of a column and of a page of ACM and IEEE. Colours are Okabe and Ito's, told apart with any colour vision;
lines differ in dashes and markers as well, areas in hatches, so that a greyscale print can be read. Fonts are embedded
(pdf) or drawn as outlines (svg). No dates, no random ids: the same data gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.33, 7.0  # inches
STYLE = Path(__file__).with_name("house.mplstyle")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 0.6)), (0, (8, 2)), (0, (3, 1, 3, 3)))
FILLS = (*COLOURS, "#882255", "#44AA99", "#332288", "#999933")  # of areas: Tol's muted ones after the eight
MARKERS = "osD^vP*X"
HATCHES = ("", "////", "||||", "xxxx", "\\\\\\\\", "++++", "----", "//", "||", "xx", "\\\\", "++")
UNDATED: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "speckvsim"},
    "svg": {"Date": None, "Creator": "speckvsim"},
    "png": {"Software": None},
}
LONGEST = 26  # characters of a name in a figure

Scale = tuple[float, str]


@dataclass
class Spot:
    """A place of a figure that shows its value when one points at it."""

    axes: Axes
    x: float
    y: float
    text: str


@dataclass
class Drawn:
    """A figure, the table of what is drawn in it, and its caption."""

    figure: Figure
    table: pd.DataFrame
    caption: str
    spots: list[Spot] = field(default_factory=list)


@contextmanager
def house() -> Iterator[None]:
    """The house style, whatever the user has in matplotlibrc."""
    from matplotlib import style

    with style.context(["default", str(STYLE)]):
        yield


def blank(
    width: float = COLUMN, height: float = 2.1, rows: int = 1, columns: int = 1, **more: Any
) -> tuple[Figure, list[Axes]]:
    """A figure without a window, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).ravel())


def save(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """NAME.pdf, .svg, .png, the data as NAME.csv and the caption as NAME.txt."""
    drawn.table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return [*save_figure(drawn, folder, name), folder / f"{name}.csv"]


def save_figure(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """The same without the data."""
    with house(), _untagged(drawn.figure):
        for kind, metadata in UNDATED.items():
            drawn.figure.savefig(folder / f"{name}.{kind}", metadata=metadata, dpi=200)
    (folder / f"{name}.txt").write_text(drawn.caption + "\n", encoding="utf-8")
    return [folder / f"{name}.{kind}" for kind in (*UNDATED, "txt")]


@contextmanager
def _untagged(figure: Figure) -> Iterator[None]:
    """Without the names of series: they would be ids of the file, several times the same."""
    tagged = [artist for artist in figure.findobj() if str(artist.get_gid() or "").startswith("series:")]
    names = [artist.get_gid() for artist in tagged]
    for artist in tagged:
        artist.set_gid(None)
    try:
        yield
    finally:
        for artist, name in zip(tagged, names):
            artist.set_gid(name)


def short(name: object, longest: int = LONGEST) -> str:
    """A name that fits: what tells names apart is as often at their end, so the middle gives way."""
    text = " ".join(str(name).split())
    ends = longest // 2
    return text if len(text) <= longest else f"{text[: longest - ends - 1]}…{text[-ends:]}"


def two_lines(name: object) -> str:
    """A name on one line, or on two where it is too long for one."""
    text = " ".join(str(name).split())
    if len(text) <= LONGEST:
        return text
    breaks = [at for at, letter in enumerate(text) if letter == " " and at <= LONGEST]
    cut = max((at for at in breaks if text[at - 1] == ","), default=max(breaks, default=0))
    return f"{text[:cut]}\n{short(text[cut + 1 :])}" if cut else short(text)


def name_bars(place: Axes, names: Sequence[object]) -> None:
    """Names beside horizontal bars 0, 1, ..., the first on top; none for a single bar."""
    shown = [two_lines(name) for name in names] if len(names) > 1 else []
    place.set_yticks(range(len(shown)), shown, linespacing=1.05)
    place.set_ylim(len(names) - 0.45, -0.55)


def lines_of_names(names: Sequence[object]) -> int:
    """Lines that the longest of the names beside bars takes."""
    return 2 if len(names) > 1 and any("\n" in two_lines(name) for name in names) else 1


def name_y(place: Axes, text: str) -> None:
    """The name of the upright axis, on two lines where one would be longer than the axis."""
    from textwrap import fill

    place.set_ylabel(fill(text, 30))


def line(index: int, marker: bool = True) -> dict[str, Any]:
    """Looks of the index-th line."""
    look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
    return look | ({"marker": MARKERS[index % len(MARKERS)]} if marker else {})


def area(index: int) -> dict[str, Any]:
    """Looks of the index-th bar or part: colour, and a hatch in white or black, whichever is seen."""
    colour = FILLS[index % len(FILLS)]
    drawn = "white" if colour != "#F0E442" else "black"
    return {"facecolor": colour, "edgecolor": drawn, "hatch": HATCHES[index % len(HATCHES)]}


def point(index: int) -> dict[str, Any]:
    """Looks of the points of the index-th series of a scatter: 64 pairs of colour and marker."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def scale(values: Sequence[float], unit: str) -> Scale:
    """(divisor, unit as written) so that the largest value is between 1 and 1000."""
    if unit not in ("s", "B", "B/s", "FLOP/s", "J"):
        return 1.0, unit
    largest = max((abs(value) for value in values if isfinite(value)), default=0.0)
    if unit in ("s", "J"):
        steps: Sequence[tuple[float, str]] = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
        if unit == "J":
            steps = ((1e6, "M"), (1e3, "k"), *steps)
    else:
        steps = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
    for size, prefix in steps:
        if largest >= size * 0.999:
            return size, f"{prefix}{unit}"
    return (1.0, unit) if largest == 0.0 else (steps[-1][0], f"{steps[-1][1]}{unit}")


def number(value: float) -> str:
    """Three digits, with separators."""
    if value != value:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Logarithmic ticks written out: powers of ten, and 2 and 5 times those where the axis spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    span = high / low if low > 0 else 1e9
    dense, even = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 3.0, 5.0)
    subs = dense if span < 4 else even if span < 10 else (1.0, 2.0, 5.0) if span < 80 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def tag(artist: Any, series: str) -> None:
    """Name an artist by its series, so that the report can hide it."""
    artist.set_gid(f"series:{series}")


def tag_all(drawn: Any, series: str) -> None:
    """A line with its whiskers."""
    line_of, caps, bars = drawn.lines
    for artist in (line_of, *caps, *bars):
        tag(artist, series)
