"""The vendor's sender as it really behaves: for demonstrations, tests and load.

`simulator.progress`, which draws on a terminal, is imported by whoever uses it.
"""

from simulator.callback import Callback, render
from simulator.classes import DEFAULT_KINDS, ClassKind, play_class
from simulator.clock import Clock
from simulator.report import SimulationCounts, SimulationProgress, SimulationReport
from simulator.scheduling import Send, schedule
from simulator.sender import Outcome, Patience, Sender
from simulator.signing import Signature, sign
from simulator.simulation import OnProgress, SimulationConfig, simulate

__all__ = [
    "DEFAULT_KINDS",
    "Callback",
    "ClassKind",
    "Clock",
    "OnProgress",
    "Outcome",
    "Patience",
    "Send",
    "Sender",
    "Signature",
    "SimulationConfig",
    "SimulationCounts",
    "SimulationProgress",
    "SimulationReport",
    "play_class",
    "render",
    "schedule",
    "sign",
    "simulate",
]
