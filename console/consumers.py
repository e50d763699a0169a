"""Consumers: what waits for them, and how they are."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
