"""The machine that measures: what it is (``facts``), how it is now (``state``), whether a run may count."""

from __future__ import annotations

from bisect_tool.host.facts import HostFacts, facts
from bisect_tool.host.guard import Complaint, Limits, complaints, must_discard
from bisect_tool.host.nvidia import GpuClient
from bisect_tool.host.state import HostState, state

__all__ = [
    "Complaint",
    "GpuClient",
    "HostFacts",
    "HostState",
    "Limits",
    "complaints",
    "facts",
    "must_discard",
    "state",
]
