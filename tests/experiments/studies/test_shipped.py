"""The studies in scenarios/studies: each says why it is asked, loads, and concludes what its runs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.conclusions import stale, updated
from simulator.experiments.studies.points import points
from simulator.experiments.studies.sweep import load, sweep

FOLDER = Path(__file__).parents[3] / "scenarios" / "studies"
STUDIES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_it_loads(file: Path):
    """Would catch: a study without its reasons or its conclusion, a field that the scenario no longer has, a point that
    is no scenario.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Why: ") and all(line.startswith("# ") for line in lines[1:3])
    assert lines[3].startswith("# Conclusion: ")
    found = points(load(file))
    assert load(file).name == file.stem and 2 <= len(found) <= 200
    assert [point.problem for point in (found[0], found[-1])] == ["", ""]


@pytest.mark.slow
@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_its_conclusion_is_what_the_runs_say(file: Path, tmp_path: Path):
    """Would catch: results that moved without `make studies`, and a conclusion written by hand."""
    result = sweep(file, tmp_path)
    assert result.failed == 0
    assert stale(file.read_text(encoding="utf-8"), result.insight["sentences"]) == []


def test_conclusions_are_brought_up_to_date():
    """Would catch: a conclusion replaced by the sentence of another arm, lines lost on the way."""
    text = "# Why: x\n# Conclusion: a of 'one' is 5.\n# Conclusion: a of 'two' is 6.\nname: y\n"
    sentences = ["a of 'two' is 7.", "a of 'one' is 5."]
    assert stale(text, sentences) == ["a of 'two' is 6."]
    assert updated(text, sentences) == text.replace("is 6", "is 7")
