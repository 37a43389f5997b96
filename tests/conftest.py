"""Settings for every test: Hypothesis draws the same examples in every run, without a time limit per example.

`HYPOTHESIS_PROFILE=explore pytest ...` draws new ones, many more; a failure it finds belongs in the test as `@example`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
