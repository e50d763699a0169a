"""Sends a test callback."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
