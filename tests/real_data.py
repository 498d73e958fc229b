"""Where the real datasets lie: in shared/data beside the repository or above it. Tests that need them skip without."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REAL = next((up / "shared/data" for up in ROOT.parents if (up / "shared/data").is_dir()), ROOT.parent / "shared/data")
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real datasets are not there ({REAL})")
