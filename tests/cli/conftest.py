"""A scenario that runs in milliseconds, and the command line in this process."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator import cli

SCENARIO = """\
name: tiny
seed: 3
workload:
  synthetic:
    requests: 12
    arrivals: {process: poisson, rate: 20 /s}
    input: {dist: fixed, tokens: 400 tokens}
    output: {dist: uniform, low: 5 tokens, high: 20 tokens}
model: llama-2-7b
cluster:
  gpus: {type: a100-80gb-sxm, count: 1}
  kv_pool: {board: agilex-7-speckv, count: 1, link: pcie-gen4-x16}
kv: {system: cxl-speckv, l1: 256 MiB, l2: 64 MiB}
"""


@dataclass
class Outcome:
    """What a command did: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Speckvsim:
    """The command in this process: same entry point, same exit codes."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str | Path) -> Outcome:
        self.monkeypatch.setattr("sys.argv", ["speckvsim", *map(str, arguments)])
        self.capsys.readouterr()
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            signal.signal(signal.SIGINT, usual)
        out, err = self.capsys.readouterr()
        return Outcome(int(end.value.code or 0), out, err)


@pytest.fixture
def speckvsim(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Speckvsim:
    return Speckvsim(capsys, monkeypatch)


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the tiny scenario, alone in the current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    file = folder / "tiny.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    return file


def files_in(folder: Path) -> set[str]:
    """All below `folder`, hidden ones too."""
    return {entry.relative_to(folder).as_posix() for entry in folder.rglob("*")}
