"""The vendor's sender as it really behaves: for demonstrations, tests and load."""

from simulator.classes import (
    DEFAULT_KINDS,
    Callback,
    ClassKind,
    Signature,
    SimulatedClass,
    make_class,
    play_class,
    render,
    sign,
)
from simulator.sending import Clock, Day, Outcome, Patience, Send, Sender, make_classes, schedule
from simulator.simulation import (
    OnProgress,
    SimulationConfig,
    SimulationCounts,
    SimulationProgress,
    SimulationReport,
    show_progress,
    simulate,
)
from simulator.vendor_answers import ApiError, Application, Site, Vendor
from simulator.vendor_api import ApiRequest, RequestLog, VendorApi

__all__ = [
    "DEFAULT_KINDS",
    "ApiError",
    "ApiRequest",
    "Application",
    "Callback",
    "ClassKind",
    "Clock",
    "Day",
    "OnProgress",
    "Outcome",
    "Patience",
    "RequestLog",
    "Send",
    "Sender",
    "Signature",
    "SimulatedClass",
    "SimulationConfig",
    "SimulationCounts",
    "SimulationProgress",
    "SimulationReport",
    "Site",
    "Vendor",
    "VendorApi",
    "make_class",
    "make_classes",
    "play_class",
    "render",
    "schedule",
    "show_progress",
    "sign",
    "simulate",
]
