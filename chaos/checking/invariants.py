"""The promises, numbered. A number is never given to another one."""

from chaos.checking.accounting import judge_dead_letters, judge_each_consumer, judge_nothing_left
from chaos.checking.answers import judge_deadline, judge_given_up, judge_statuses
from chaos.checking.bounds import judge_bounds
from chaos.checking.finding import Invariant
from chaos.checking.keeping import judge_applied, judge_bytes, judge_durable
from chaos.checking.once import judge_applied_once, judge_remembered
from chaos.checking.recovery import judge_isolation, judge_recovery
from chaos.checking.strangers import judge_not_accepted, judge_secrets

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        number="I1",
        sentence="What was answered 200 is in the store, or an accounted dead letter.",
        judge=judge_applied,
    ),
    Invariant(
        number="I2",
        sentence="It is applied once: one row per event, and every recording is what its events add up to.",
        judge=judge_applied_once,
    ),
    Invariant(
        number="I3",
        sentence="It is applied, and given to consumers, with exactly the bytes that came.",
        judge=judge_bytes,
    ),
    Invariant(
        number="I4",
        sentence="Nothing is answered 200 without a durable copy.",
        judge=judge_durable,
    ),
    Invariant(
        number="I5",
        sentence="Every answer leaves within 8 s; none comes after its deadline.",
        judge=judge_deadline,
    ),
    Invariant(
        number="I6",
        sentence="Every dead letter is accounted for: in the store, with reason, attempts and times.",
        judge=judge_dead_letters,
    ),
    Invariant(
        number="I7",
        sentence="A redelivery runs no effect twice: after a success was remembered, no handler is called again.",
        judge=judge_remembered,
    ),
    Invariant(
        number="I8",
        sentence="What nobody accepted is not applied, nor anywhere else.",
        judge=judge_not_accepted,
    ),
    Invariant(
        number="I9",
        sentence="Every answer is one of the documented statuses.",
        judge=judge_statuses,
    ),
    Invariant(
        number="I10",
        sentence="Nothing is left behind: queues, spools and retry queues are empty at the end.",
        judge=judge_nothing_left,
    ),
    Invariant(
        number="I11",
        sentence="After a fault's end things move again within the scenario's bound.",
        judge=judge_recovery,
    ),
    Invariant(
        number="I12",
        sentence="One consumer's trouble delays no other.",
        judge=judge_isolation,
    ),
    Invariant(
        number="I13",
        sentence="Every consumer gets every event that it asked for.",
        judge=judge_each_consumer,
    ),
    Invariant(
        number="I14",
        sentence="The sender, as patient as the vendor's, gives nothing up.",
        judge=judge_given_up,
    ),
    Invariant(
        number="I15",
        sentence="What a scenario measures beside the ledger stays within its bound.",
        judge=judge_bounds,
    ),
    Invariant(
        number="I16",
        sentence="No Sign and no key is in the store, in spools or in logs.",
        judge=judge_secrets,
    ),
)
