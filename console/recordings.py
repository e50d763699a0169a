"""Recordings, searched."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
