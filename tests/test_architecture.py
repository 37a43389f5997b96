"""The shape of the project: who imports whom, how long a file is, what an installation gets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("simulator", "analysis")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("run", "dev", "all")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of `pyproject.toml`, checked on the packages in `folder`."""
    program = "from importlinter.cli import lint_imports_command as main; main(prog_name='lint-imports')"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the packages and the contracts, free to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_point_downward():
    """Would catch: an import against the layers, a new top-level module without a place in them."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("simulator.workload.added", "simulator.scheduler"),
        ("simulator.hardware.added", "simulator.kvcache"),
        ("simulator.metrics.added", "simulator.hardware"),
        ("simulator.scheduler.added", "simulator.scenario.added"),
        ("simulator.scheduler.added", "simulator.catalog"),
        ("simulator.prefetch.added", "simulator.workload"),
        ("simulator.experiments.added", "analysis"),
        ("analysis.added", "simulator"),
        ("analysis.added", "simulator.experiments"),
    ],
)
def test_contracts_catch(module: str, imported: str, copied: Path):
    """Would catch: a contract that a renamed package, an ignored import or a loosened rule has made empty."""
    for name in {module, "simulator.scenario.added"}:
        (copied / name.replace(".", "/")).with_suffix(".py").touch()
    (copied / module.replace(".", "/")).with_suffix(".py").write_text(f"import {imported}\n", encoding="utf-8")
    result = lint_imports(copied)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{module} -> {imported} (l.1)" in result.stdout


def test_a_module_without_a_layer_is_refused(copied: Path):
    """Would catch: the list of layers no longer exhaustive, so that a new package escapes every rule."""
    (copied / "simulator" / "added.py").touch()
    result = lint_imports(copied)
    assert result.returncode == 1
    assert "simulator.added" in result.stdout


def test_files_stay_short():
    """Would catch: a module that grew past what one reads in a sitting (aim: 250 lines, limit: 400)."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_importing_the_package_is_cheap():
    """Would catch: `import simulator` (and so every command, also `--help`) paying for pandas or pydantic."""
    program = "import json, sys; import simulator; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"pandas", "matplotlib", "scipy", "pydantic", "pyarrow", "joblib", "dask", "optuna"}
    assert heavy & set(json.loads(loaded)) == set()


def locked(name: str) -> dict[str, str]:
    """Package -> version of one lock file. Every line must be a pinned requirement, a hash or a comment."""
    versions = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if pin := re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)( ; [a-z_]+ [!=<>]+ '[\w.]+')? \\", line):
            versions[pin[1]] = pin[2]
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?|\s*#[^/]*", line), f"{name}.txt: {line}"
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_pin_everything_and_name_no_place(name: str):
    """Would catch: a package without a hash, an index, link or local path that only works where it was written."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    packages = locked(name)
    blocks = re.findall(r"^\S+==.*\\\n(?:    --hash=\S+ \\\n)*    --hash=\S+\n", text, flags=re.MULTILINE)
    assert len(blocks) == len(packages) > 0


def test_lock_files_agree_with_each_other_and_the_project():
    """Would catch: `make run` and `make test` fighting over the shared environment; a dependency, or the backend that
    builds the project itself, left out of the lock files.
    """
    run, dev, everything = (locked(name) for name in LOCKS)
    assert run.items() <= dev.items() <= everything.items()

    def missing(requirements: list[str], lock: dict[str, str]) -> set[str]:
        return {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements} - lock.keys()

    extras = SETTINGS["project"]["optional-dependencies"]
    assert missing(SETTINGS["project"]["dependencies"], run) == set()
    assert missing(extras["dev"], dev) == set()
    assert missing(extras["cluster"] + extras["explore"], everything) == set()
    assert SETTINGS["dependency-groups"]["build"] == SETTINGS["build-system"]["requires"]
    assert missing(SETTINGS["build-system"]["requires"], run) == set()


def test_wheel_has_the_packages_with_their_data(tmp_path: Path):
    """Would catch: catalogue files missing from an installation, tests or scenarios ending up in site-packages."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    assert shipped == {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
