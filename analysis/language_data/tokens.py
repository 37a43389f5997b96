"""Token ids of real text: the Python Language Reference as it ships with CPython (`pydoc_data.topics`, PSF-2.0).

    python -m analysis.language_data.tokens traces/python_reference [--training DIR]

writes `tokens.npy.gz` (uint16 ids in text order, last tenth held out; kept in `simulator/prefetch/data/`) and `bpe.json` (the
byte-level BPE that made them, 4,096 entries, trained on the first nine tenths). `--training` adds, for `train.py`,
`training.npy`: the sources of the standard library under the same BPE, which are too large to keep.

Needs the `tokenizers` package, which the project itself does not use. The text depends on the version of Python (3.11.7).
"""

from __future__ import annotations

import argparse
import gzip
import sysconfig
from pathlib import Path
from pydoc_data import topics

import numpy as np

VOCABULARY = 4096
HELD_OUT = 0.1


def reference() -> str:
    """The Python Language Reference, topics in alphabetical order."""
    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))


def library(limit: int) -> str:
    """Sources of the standard library without its tests, in order of their paths, `limit` characters."""
    root, texts, size = Path(sysconfig.get_path("stdlib")), [], 0
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"site-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings"} & set(parts):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        texts.append(text)
        size += len(text)
        if size > limit:
            break
    return "\n\n".join(texts)


def main() -> None:
    from tokenizers import ByteLevelBPETokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--training", type=Path)
    arguments = parser.parse_args()
    text = reference()
    known = text[: int(len(text) * (1 - HELD_OUT))]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([known], vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    ids = np.array(bpe.encode(text).ids, np.uint16)
    with gzip.GzipFile(arguments.out / "tokens.npy.gz", "wb", mtime=0) as file:
        np.save(file, ids)
    bpe.save(str(arguments.out / "bpe.json"))
    print(f"{len(text):,} characters, {len(ids):,} tokens, {len(np.unique(ids)):,} of {VOCABULARY:,} entries used")
    if arguments.training:
        arguments.training.mkdir(parents=True, exist_ok=True)
        source = np.array(bpe.encode(library(16_000_000)).ids, np.uint16)
        np.save(arguments.training / "training.npy", source)
        print(f"training: {len(source):,} tokens")


if __name__ == "__main__":
    main()
