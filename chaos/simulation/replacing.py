"""Putting doubles in the place of what a simulation cannot have: threads, randomness of the system, real clocks."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(replacements: Mapping[str, Any]) -> Iterator[None]:
    """Let `package.module:name` be another object while the block runs."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for place, double in replacements.items():
            module_name, _, name = place.partition(":")
            module = importlib.import_module(module_name)
            before.append((module, name, getattr(module, name)))
            setattr(module, name, double)
        yield
    finally:
        for module, name, original in reversed(before):
            setattr(module, name, original)
