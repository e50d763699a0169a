"""Load an example as TIW_CONSUMERS does."""

from pathlib import Path

from workers import Consumer, load_consumers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> Consumer:
    """Return the one consumer of `examples/<name>.py`, its settings read from the environment of now."""
    (consumer,) = load_consumers([str(EXAMPLES / f"{name}.py")])
    return consumer
