"""What tests of several rooms share: wheels are downloaded once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wheel_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``builds/`` folder that real releases are installed into, or the one that the variable names."""
    named = os.environ.get("BISECT_TOOL_TEST_BUILDS")
    return Path(named).absolute() if named else tmp_path_factory.mktemp("builds")
