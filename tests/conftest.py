import os
from pathlib import Path

import jax
import pytest

# A silent broadcast between ranks is how a loss or a measure goes wrong unseen.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans, beside the repository or where UNC_REAL_DATA says."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNC_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}")
    return folder
