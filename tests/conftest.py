"""Fixtures that several files share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole random model, made once; tests that damage it work on a copy."""
    from tiny import write_model

    return write_model(tmp_path_factory.mktemp("tiny") / "model")
