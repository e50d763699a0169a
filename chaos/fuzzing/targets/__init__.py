"""What is fuzzed: each target takes any bytes, and raises when a promise is broken."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from chaos.fuzzing.targets import bodies, messages, plain, requests, spool

Run: TypeAlias = Callable[[bytes], None]


class Target(Struct, frozen=True, kw_only=True):
    """`run` is given bytes of at most `max_bytes`. `corpus` names the folder of its first inputs.

    `share` is its part of all executions, in thousandths. `stands_for_bytes`: an input is blown up to
    that many.
    """

    name: str
    run: Run
    corpus: str
    share: int
    max_bytes: int = 4096
    stands_for_bytes: int | None = None


TARGETS = {
    target.name: target
    for target in (
        Target(name="admission", run=bodies.admission, corpus="bodies", share=200),
        Target(name="signed_admission", run=bodies.signed_admission, corpus="bodies", share=100),
        Target(name="decoding", run=bodies.decoding, corpus="bodies", share=220),
        Target(name="lenient", run=bodies.lenient, corpus="bodies", share=200),
        Target(
            name="growth",
            run=bodies.growth,
            corpus="growth",
            share=1,
            max_bytes=256,
            stands_for_bytes=bodies.GROWN_BYTES,
        ),
        Target(name="heads", run=requests.heads, corpus="heads", share=50),
        Target(name="plain", run=plain.plain, corpus="heads", share=10),
        Target(name="headers", run=messages.headers, corpus="properties", share=100),
        Target(name="frames", run=messages.frames, corpus="frames", share=20),
        Target(name="deliveries", run=messages.deliveries, corpus="frames", share=30),
        Target(name="spool", run=spool.spool, corpus="frames", share=30),
        Target(name="keys", run=requests.keys, corpus="keys", share=50),
        Target(name="trace", run=requests.trace, corpus="traces", share=50),
    )
}

__all__ = ["TARGETS", "Run", "Target"]
