"""Not a world: where their files are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ramdisk import quick_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: each world has dozens of passes, and a pass on a disk does little but wait for fsync."""
    with quick_directory() as directory:
        yield Path(directory)
