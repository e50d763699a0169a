"""The vendor's sender as it really behaves: for demonstrations, tests and load."""

from simulator.classes import DEFAULT_KINDS, Callback, ClassKind, Signature, play_class, render, sign
from simulator.sending import Clock, Outcome, Patience, Send, Sender, schedule
from simulator.simulation import (
    OnProgress,
    SimulationConfig,
    SimulationCounts,
    SimulationProgress,
    SimulationReport,
    show_progress,
    simulate,
)

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
    "show_progress",
    "sign",
    "simulate",
]
