"""What the README shows is there, and nothing in it overlaps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from analysis.figures.draw import figures_of
from analysis.figures.results import open_results
from analysis.figures.style import COLUMN, PAGE, house

ROOT = Path(__file__).parents[2]


def test_gallery_has_data_and_captions_beside_its_figures():
    """Would catch: a figure of the gallery without its table, or so large that the README is slow."""
    figures = sorted((ROOT / "docs" / "gallery").glob("*.svg"))
    assert len(figures) == 4
    for figure in figures:
        assert figure.with_suffix(".csv").exists() and figure.with_suffix(".txt").exists()
        assert figure.stat().st_size < 200_000, figure.name


@pytest.mark.slow
@pytest.mark.parametrize("which", ["run_folder", "sweep_folder"])
def test_labels_do_not_overlap(which: str, request: pytest.FixtureRequest):
    """Would catch: tick labels, axis labels or legends over each other at column width."""
    for name, drawn in figures_of(open_results(request.getfixturevalue(which))).items():
        figure = drawn.figure
        assert min(abs(figure.get_figwidth() - width) for width in (COLUMN, PAGE / 2, PAGE)) < 1e-6, name
        with house():
            figure.draw_without_rendering()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                labels = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
                boxes = [label.get_window_extent() for label in labels]
                inside = [box for box in boxes if axes.get_window_extent().expanded(1.4, 1.4).overlaps(box)]
                for one, other in pairwise(inside):
                    assert not one.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98)), (name, axis.axis_name)
                title = axis.get_label()
                if title.get_text():
                    assert not any(title.get_window_extent().overlaps(box) for box in inside), name
            for legend in [each for each in figure.legends if each]:
                assert not legend.get_window_extent().shrunk(1, 0.98).overlaps(axes.get_window_extent()), name
