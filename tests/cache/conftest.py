from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a cache may live; neither it nor its parent is there yet."""
    return tmp_path / "parent" / "cache"
