"""What happened to a class, and what puts it right, in a browser."""

from console.peers import Peers
from console.server import ConsoleConfig, RunningConsole, run_console

__all__ = ["ConsoleConfig", "Peers", "RunningConsole", "run_console"]
