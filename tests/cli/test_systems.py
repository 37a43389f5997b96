"""The commands for published systems: `systems`, `catalog kv_systems`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Speckvsim
from tests.experiments.test_systems import STUDY


def test_command(tmp_path: Path, speckvsim: Speckvsim) -> None:
    """Catches text among the JSON, a key that the table has and --json has not."""
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(STUDY | {"axes": {"kv.system": ["none", "blasst"]}, "arms": {"plain": {}}}))
    found = speckvsim("systems", str(study), "--out", str(tmp_path / "out"), "--json", "--jobs", "1", "--quiet")
    assert found.code == 0
    rows = json.loads(found.out)["rows"]
    assert [row["system"] for row in rows] == ["none", "blasst"]
    assert {"output_tokens_per_s", "sequences", "bound_by", "usd_per_million_output_tokens", "needs"} <= set(rows[0])


def test_catalogue_command(speckvsim: Speckvsim) -> None:
    """Catches a listing without the systems, an explanation without values or what was published."""
    listing = speckvsim("catalog", "kv_systems").out
    assert "duoattention" in listing and "partial" in listing
    explained = speckvsim("catalog", "kv_systems", "kivi").out
    assert all(part in explained for part in ("kv.hbm_codec.k_bits = 2", "batch size: 4x", "Quality"))
    document = json.loads(speckvsim("catalog", "kv_systems", "instinfer", "--json").out)
    assert len(document["needs"]) == 3 and document["headlines"][0]["value"] == 11.1


def test_headlines_command(speckvsim: Speckvsim) -> None:
    """Catches a table without labels or reasons, rows that differ from --json; a study or the option, one is needed."""
    rows = json.loads(speckvsim("systems", "--headlines", "--json").out)["rows"]
    text = speckvsim("systems", "--headlines").out
    assert all(row["system"] in text and row["label"] in text for row in rows)
    assert {"published", "simulated", "assumed", "label", "why", "bound", "conditions"} <= set(rows[0])
    assert speckvsim("systems").code == 2
