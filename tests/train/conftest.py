from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_run import DiskFolder


@pytest.fixture
def folder(tmp_path: Path) -> DiskFolder:
    return DiskFolder(tmp_path)
