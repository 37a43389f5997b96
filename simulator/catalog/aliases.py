"""Other names of models: what papers, tables and Hugging Face call them.

Case, the owner's prefix (`meta-llama/`), `_` or blanks for `-`, the prefix `meta-` and endings such as `-hf`, `-instruct` or a
release (`-2507`) do not matter; what is left is a name of the catalogue, or one of `ALIASES`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

ALIASES = {
    "bloom": "bloom-176b", "deepseek-r1": "deepseek-v3", "deepseek-v3/r1": "deepseek-v3", "gpt-3": "gpt-3-175b",
    "gpt3-175b": "gpt-3-175b", "gptj-6b": "gpt-j-6b", "llama-7b": "llama-2-7b", "llama-13b": "llama-2-13b",
    "llama-70b": "llama-2-70b", "llama2-7b": "llama-2-7b", "llama2-13b": "llama-2-13b", "llama2-70b": "llama-2-70b",
    "llama3-8b": "llama-3-8b", "llama3-70b": "llama-3-70b", "llama3.1-8b": "llama-3.1-8b", "llama3.1-70b": "llama-3.1-70b",
    "llama-3.3-70b": "llama-3.1-70b", "llama-405b": "llama-3.1-405b", "llama3.1-405b": "llama-3.1-405b",
    "llama3.2-1b": "llama-3.2-1b", "llama3.2-3b": "llama-3.2-3b", "qwen2-7b": "qwen2.5-7b",
    "mistral-7b": "mistral-7b-v0.1", "mistral-7b-instruct-v0.1": "mistral-7b-v0.1",
    "mistral-7b-instruct-v0.3": "mistral-7b-v0.3", "mixtral-8x7b-v0.1": "mixtral-8x7b",
    "mixtral-8x7b-instruct-v0.1": "mixtral-8x7b",
}  # fmt: skip
ENDINGS = re.compile(r"-(hf|instruct|chat|base|it|thinking|fp8|\d{4})$")


def canonical(name: str, known: Collection[str]) -> str:
    """The name among `known` that `name` means; what is left of `name` where there is none."""
    plain = name.strip().casefold().replace("_", "-").replace(" ", "-")
    for short in (plain, plain.rpartition("/")[2]):
        short = short.removeprefix("meta-")
        while True:
            if short in known:
                return short
            if short in ALIASES:
                return ALIASES[short]
            shorter = ENDINGS.sub("", short)
            if shorter == short:
                break
            short = shorter
    return short
