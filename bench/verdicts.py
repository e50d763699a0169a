"""What became of the targets."""

from collections.abc import Sequence

from bench.results import Comparison, Contestant, Verdict
from bench.targets import TARGETS, Target


def judge(target: Target, comparison: Comparison) -> Verdict:
    """Say whether a target was met, from the medians of all rounds; beside it the extremes of the rounds alone."""
    ours = comparison.contestant(target.contender)
    peer = _best(target, comparison)
    value = None if ours is None else ours.median(target.metric)
    rounds = [] if ours is None else _values(ours, target.metric)
    if target.peers:
        reference = None if peer is None else peer.median(target.metric)
        value = None if value is None or not reference else value / reference
        # A void round has no partner: then rounds cannot be told apart, and only the medians count.
        theirs = [] if peer is None else _values(peer, target.metric)
        rounds = [a / b for a, b in zip(rounds, theirs, strict=True)] if len(rounds) == len(theirs) else []
    text = target.text if peer is None or len(target.peers) == 1 else f"{target.text} ({peer.name})"
    return Verdict(
        comparison=target.comparison,
        text=text,
        wanted=target.wanted,
        value=value,
        is_met=None if value is None else _is_met(target, value),
        low=min(rounds, default=None),
        high=max(rounds, default=None),
    )


def judge_all(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Judge the targets of the comparisons that were made."""
    made = {comparison.name: comparison for comparison in comparisons}
    return [judge(target, made[target.comparison]) for target in TARGETS if target.comparison in made]


def _best(target: Target, comparison: Comparison) -> Contestant | None:
    peers = [peer for name in target.peers if (peer := comparison.contestant(name)) and peer.rounds]
    if not peers:
        return None
    choose = max if target.at_least is not None else min
    return choose(peers, key=lambda peer: peer.median(target.metric) or 0.0)


def _values(contestant: Contestant, metric: str) -> list[float]:
    return [values[metric] for values in contestant.rounds if metric in values]


def _is_met(target: Target, value: float) -> bool:
    if target.at_least is not None and value < target.at_least:
        return False
    return target.at_most is None or value <= target.at_most
