"""Bring the conclusions of a study file up to date with a sweep of it.

    speckvsim sweep STUDY.yaml --out DIR && python -m analysis.conclusions STUDY.yaml DIR

A study says what its runs say in lines `# Conclusion: SENTENCE`, each a sentence of the sweep's insight.json. Each line
is replaced by the sentence that is most like it; `--check` only reports lines that are not among the sentences.
"""

from __future__ import annotations

import json
import sys
from difflib import SequenceMatcher
from pathlib import Path

HEAD = "# Conclusion: "


def stale(text: str, sentences: list[str]) -> list[str]:
    """Conclusions of a study file that its runs do not say."""
    return [
        line.removeprefix(HEAD)
        for line in text.splitlines()
        if line.startswith(HEAD) and line.removeprefix(HEAD) not in sentences
    ]


def updated(text: str, sentences: list[str]) -> str:
    """The study file with the nearest sentence in place of each conclusion."""

    def nearest(line: str) -> str:
        said = line.removeprefix(HEAD)
        return HEAD + max(sentences, key=lambda each: SequenceMatcher(None, said, each, autojunk=False).ratio())

    return "".join(f"{nearest(line) if line.startswith(HEAD) else line}\n" for line in text.splitlines())


def main(study: Path, folder: Path, check: bool = False) -> int:
    sentences = json.loads((folder / "insight.json").read_text(encoding="utf-8"))["sentences"]
    text = study.read_text(encoding="utf-8")
    old = stale(text, sentences)
    for line in old:
        print(f"{study}: not what the runs say: {line}")
    if not check:
        study.write_text(updated(text, sentences), encoding="utf-8")
    return int(check and bool(old))


if __name__ == "__main__":
    arguments = [each for each in sys.argv[1:] if each != "--check"]
    sys.exit(main(Path(arguments[0]), Path(arguments[1]), "--check" in sys.argv))
