"""Refused callbacks that other keys might let in."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
