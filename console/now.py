"""What is going on, on one page."""

from console.requests import Route

ROUTES: tuple[Route, ...] = ()
