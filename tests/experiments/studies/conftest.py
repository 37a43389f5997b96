"""Sweeps and searches without worker processes, where these are not what is tested."""

from __future__ import annotations

import pytest

from simulator.experiments.studies import search, sweep
from tests.experiments.studies.worlds import Here


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    workers = Here()
    for module in (sweep, search):
        monkeypatch.setattr(module, "pool", lambda *_: workers)
    return workers
