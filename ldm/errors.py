"""The exceptions of the project, one family.

LdmError
├── ConfigError       a recipe, an override or a saved configuration is wrong      (ValueError)
├── DataError         a shard, a manifest or a picture is wrong                    (ValueError)
├── RequestError      an argument to a pipeline or a script is wrong               (ValueError)
├── CheckpointError   weights are missing, damaged or do not belong together       (RuntimeError)
└── DivergedError     training produced numbers that are not finite                (RuntimeError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LdmError(Exception):
    """Base of every error that the project raises on purpose: its text is meant for a person."""


class ConfigError(LdmError, ValueError):
    """A recipe, an override or a saved configuration is wrong."""


class DataError(LdmError, ValueError):
    """A shard, a manifest or a picture is wrong."""


class RequestError(LdmError, ValueError):
    """An argument to a pipeline or a script is wrong."""


class CheckpointError(LdmError, RuntimeError):
    """Weights are missing, damaged or do not belong together."""


class DivergedError(LdmError, RuntimeError):
    """Training produced numbers that are not finite."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """' Did you mean x?' or '' — the tail of an error about an unknown name."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
