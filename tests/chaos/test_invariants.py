"""Each invariant is violated by forged evidence, unchecked without evidence, and satisfied by good evidence."""

from typing import Any

import pytest

from chaos.checking.checker import INVARIANTS, judge
from chaos.checking.evidence import Evidence, Finding, Invariant, Judgement
from chaos.evidence import GaveUp
from chaos.matrix import count
from tests.chaos.forged_evidence import (
    all_went_well,
    completed,
    dead_letter,
    effect,
    evidence,
    fault,
    measured,
    sent,
    stored,
    terms,
    tried,
    waiting,
)


def finding(number: str, of: Evidence) -> Finding:
    (invariant,) = (one for one in INVARIANTS if one.number == number)
    return invariant.judge(of)


def assert_violated(number: str, of: Evidence, *, violations: int = 1) -> None:
    found = finding(number, of)
    assert (found.judgement, found.violations) == (Judgement.VIOLATED, violations), found
    assert found.text


def assert_satisfied(number: str, of: Evidence, *, exercised: int = 1) -> None:
    found = finding(number, of)
    assert (found.judgement, found.exercised) == (Judgement.SATISFIED, exercised), found


def assert_unchecked(number: str, of: Evidence) -> None:
    found = finding(number, of)
    assert found.judgement is Judgement.UNCHECKED, found
    assert found.text


def test_the_numbers_are_those_of_the_promises_in_their_order() -> None:
    assert [one.number for one in INVARIANTS] == [f"I{number}" for number in range(1, len(INVARIANTS) + 1)]


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda one: one.number)
def test_without_any_evidence_an_invariant_is_unchecked_and_never_satisfied(invariant: Invariant) -> None:
    assert_unchecked(invariant.number, evidence())


def test_i1_is_violated_by_an_accepted_callback_that_is_nowhere() -> None:
    lost = evidence(**{**all_went_well("a", "b"), "events": (stored("a"),)})
    assert_violated("I1", lost)
    assert count(lost, judge(lost)).lost == 1


def test_i1_is_violated_by_an_accepted_callback_that_still_waits() -> None:
    late = evidence(**{**all_went_well("a"), "events": (), "waiting": (waiting("tiw.started", "a"),)})
    assert_violated("I1", late)
    numbers = count(late, judge(late))
    assert (numbers.lost, numbers.unaccounted) == (0, 1)


def test_what_was_not_read_of_a_long_queue_is_unaccounted_and_not_lost() -> None:
    long = waiting("tiw.started", "a")
    late = evidence(
        **{
            **all_went_well("a", "b"),
            "events": (),
            "waiting": (type(long)(place=long.place, count=2, event_ids=("a",)),),
        }
    )
    numbers = count(late, judge(late))
    assert (numbers.lost, numbers.unaccounted) == (0, 2)


def test_i1_holds_for_a_dead_letter_of_a_built_in_consumer_and_not_for_one_of_another() -> None:
    dead: dict[str, Any] = {**all_went_well("a"), "events": ()}
    assert_satisfied("I1", evidence(**dead, dead_letters=(dead_letter("a", "started"),)))
    assert_violated("I1", evidence(**dead, dead_letters=(dead_letter("a", "effects"),)))


def test_i2_is_violated_by_two_rows_and_by_a_recording_that_is_not_its_events() -> None:
    good = all_went_well("a")
    assert_violated("I2", evidence(**{**good, "events": (stored("a"), stored("a"))}))
    assert_violated("I2", evidence(**good, differing=("1/class-1: status",)))


def test_i2_needs_a_callback_that_came_more_than_once() -> None:
    good = all_went_well("a")
    assert_unchecked("I2", evidence(**good))
    assert_satisfied("I2", evidence(**{**good, "tries": [tried("a", 503), tried("a", 200, at_s=5, attempt=2)]}))


def test_i3_is_violated_by_other_bytes_in_the_store_or_with_a_consumer() -> None:
    good = all_went_well("a")
    assert_violated("I3", evidence(**{**good, "events": (stored("a", digest="other"),)}))
    assert_violated("I3", evidence(**{**good, "effects": [effect("a", sha256="other")]}))
    assert_satisfied("I3", evidence(**good))


def test_i4_is_violated_by_a_200_while_nothing_could_keep_it() -> None:
    dark = [fault(from_s=1, to_s=9, nothing_durable=True)]
    good = all_went_well("a")
    assert_violated("I4", evidence(**{**good, "tries": [tried("a", at_s=2)]}, faults=dark))
    assert_satisfied("I4", evidence(**{**good, "tries": [tried("a", 503, at_s=2)]}, faults=dark))
    assert_unchecked("I4", evidence(**{**good, "tries": [tried("a", at_s=0.5, took_s=1)]}, faults=dark))


def test_i4_is_violated_by_an_accepted_callback_that_a_loss_of_power_took() -> None:
    ends = [fault("power loss", "everything", from_s=1, to_s=9, ends_everything=True)]
    lost: dict[str, Any] = {**all_went_well("a"), "effects": [], "events": ()}
    assert_violated("I4", evidence(**lost, faults=ends))
    kept: dict[str, Any] = {**all_went_well("a"), "effects": [effect("a", at_s=10)]}
    assert_satisfied("I4", evidence(**kept, faults=ends))


def test_i4_counts_only_what_nothing_but_a_durable_copy_can_have_carried_over() -> None:
    ends = [fault("power loss", "everything", from_s=1, to_s=9, ends_everything=True)]
    assert_unchecked("I4", evidence(**all_went_well("a"), faults=ends))
    again: dict[str, Any] = {**all_went_well("a"), "effects": [effect("a", at_s=10)]}
    again["tries"] = [tried("a"), tried("a", at_s=9.5, attempt=0)]
    assert_unchecked("I4", evidence(**again, faults=ends))


def test_i5_is_violated_by_an_answer_after_8_s_and_by_none() -> None:
    good = all_went_well("a")
    assert_violated("I5", evidence(**{**good, "tries": [tried("a", took_s=8.6)]}))
    assert_violated("I5", evidence(**{**good, "tries": [tried("a", 0, took_s=10, failure="time-out")]}))
    assert_satisfied("I5", evidence(**{**good, "tries": [tried("a", took_s=7.9)]}))


def test_i5_takes_off_what_the_sender_itself_stood_still() -> None:
    slow = tried("a", took_s=9, stalled_us=3_000_000)
    assert_satisfied("I5", evidence(**{**all_went_well("a"), "tries": [slow]}))
    impatient = tried("a", 0, took_s=10, failure="time-out", stalled_us=6_600_000)
    assert_unchecked("I5", evidence(**{**all_went_well("a"), "tries": [impatient]}))


def test_i5_does_not_judge_a_process_that_stood_still_or_a_connection_that_was_refused() -> None:
    good = all_went_well("a")
    frozen = [fault("SIGSTOP", "ingest-1", from_s=0, to_s=40, excuses_deadline=True)]
    late = [tried("a", 0, took_s=10, failure="time-out")]
    assert_unchecked("I5", evidence(**{**good, "tries": late}, faults=frozen))
    assert_unchecked("I5", evidence(**{**good, "tries": [tried("a", 0, failure="not connected")]}))


def test_i6_is_violated_by_a_dead_letter_without_an_account() -> None:
    good = all_went_well("a")
    assert_violated("I6", evidence(**good, dead_letters=(dead_letter("a", reason=""),)))
    assert_violated("I6", evidence(**good, dead_letters=(dead_letter("a", attempts=0),)))
    assert_violated("I6", evidence(**good, dead_letters=(dead_letter("a", first_failed_at_us=3),)))
    assert_violated("I6", evidence(**good, dead_letters=(dead_letter("foreign"),)))
    assert_violated("I6", evidence(**good, waiting=(waiting("tiw.effects.dead", "a"),)))
    assert_violated("I6", evidence(**good, waiting=(waiting("tiw.orphaned", "a"),)))
    assert_satisfied("I6", evidence(**good, dead_letters=(dead_letter("a"),)))


def test_i6_is_violated_by_who_gives_up_too_early_where_that_is_known() -> None:
    known = terms(gives_up={"effects": 3}, gives_up_at_once_with=("cannot be handled",))

    def letter(consumer: str = "effects", **changes: Any) -> Evidence:
        return evidence(**all_went_well("a"), dead_letters=(dead_letter("a", consumer, **changes),), terms=known)

    assert_satisfied("I6", letter(attempts=3))
    assert_violated("I6", letter(attempts=2))
    assert_satisfied("I6", letter(attempts=1, reason="cannot be handled"))
    assert_violated("I6", letter("started", attempts=9))
    assert_violated("I6", letter(reason="worker crashed"))


def test_i6_is_violated_by_a_dead_letter_of_a_success() -> None:
    both = evidence(
        **{**all_went_well("a"), "completions": (completed("a", at_s=1, consumer="fails"),)},
        dead_letters=(dead_letter("a", "fails"),),
        terms=terms(consumers=("effects", "fails"), meant_to_fail=("fails",)),
    )
    assert_violated("I6", both)


def test_i7_is_violated_by_a_handler_that_is_called_after_its_success_was_remembered() -> None:
    good = all_went_well("a")
    again = [effect("a", at_s=0.1), effect("a", at_s=0.3, attempt=2)]
    assert_violated("I7", evidence(**{**good, "effects": again}))


def test_i7_allows_an_effect_that_is_repeated_before_it_was_remembered_and_counts_it() -> None:
    good: dict[str, Any] = {**all_went_well("a"), "tries": [tried("a"), tried("a", at_s=5, attempt=0)]}
    twice = {**good, "effects": [effect("a", at_s=0.1), effect("a", at_s=0.19)]}
    repeated = evidence(**twice, faults=[fault(from_s=0.15, to_s=0.2)])
    assert_satisfied("I7", repeated)
    assert count(repeated, judge(repeated)).repeated_effects == 1


def test_i7_is_violated_by_more_calls_than_faults_explain() -> None:
    twice = {**all_went_well("a"), "effects": [effect("a", at_s=0.1), effect("a", at_s=0.19)]}
    assert_violated("I7", evidence(**twice))
    assert_violated("I7", evidence(**twice, faults=[fault(from_s=0.15, to_s=0.2, repeats=0)]))
    assert_unchecked("I7", evidence(**twice, faults=[fault(from_s=0.15, to_s=0.2, repeats=1)]))


def test_i7_is_unchecked_if_no_redelivery_was_seen() -> None:
    assert_unchecked("I7", evidence(**all_went_well("a")))


@pytest.mark.parametrize("place", ["events", "effects", "dead_letters", "waiting"])
def test_i8_is_violated_by_a_forgery_that_is_anywhere(place: str) -> None:
    found: dict[str, Any] = {
        "events": (stored("f"),),
        "effects": [effect("f")],
        "dead_letters": (dead_letter("f"),),
        "waiting": (waiting("tiw.started", "f"),),
    }
    forged: dict[str, Any] = {"sent": [sent("f", forged="no Sign")], "tries": [tried("f", 401)]}
    assert_satisfied("I8", evidence(**forged))
    assert_violated("I8", evidence(**forged, **{place: found[place]}))


def test_i8_is_violated_by_a_forgery_that_is_answered_200_and_by_a_stranger_in_the_store() -> None:
    assert_violated("I8", evidence(sent=[sent("f", forged="expired")], tries=[tried("f", 200)]))
    assert_violated("I8", evidence(**{**all_went_well("a"), "events": (stored("a"), stored("x"))}))


def test_i8_is_unchecked_if_no_forgery_was_answered() -> None:
    assert_unchecked("I8", evidence(sent=[sent("f", forged="no Sign")], tries=[tried("f", 0)]))


@pytest.mark.parametrize("status", [201, 202, 401, 500, 502, 504])
def test_i9_is_violated_by_a_status_that_is_not_documented_for_a_genuine_callback(status: int) -> None:
    assert_violated("I9", evidence(**{**all_went_well("a"), "tries": [tried("a", status)]}))


@pytest.mark.parametrize("status", [200, 503])
def test_i9_holds_for_the_documented_ones(status: int) -> None:
    assert_satisfied("I9", evidence(**{**all_went_well("a"), "tries": [tried("a", status)]}))


def test_i10_is_violated_by_what_is_left() -> None:
    assert_violated("I10", evidence(**all_went_well("a"), waiting=(waiting("tiw.retry.1s", "a"),)))
    assert_violated("I10", evidence(**all_went_well("a"), waiting=(waiting("spool of ingest-1", "a"),)))
    assert_satisfied("I10", evidence(**all_went_well("a")), exercised=2)


def test_i10_is_unchecked_if_a_place_could_not_be_looked_into() -> None:
    assert_unchecked("I10", evidence(**all_went_well("a"), not_looked=("spool of ingest-1: no such command",)))


def test_i11_is_violated_if_things_move_again_too_late_or_never() -> None:
    kill = [fault(from_s=1, to_s=2)]
    assert_violated("I11", evidence(sent=[sent("a", at_s=3)], effects=[effect("a", at_s=40)], faults=kill))
    assert_violated("I11", evidence(sent=[sent("a", at_s=3)], faults=kill))
    assert_satisfied("I11", evidence(sent=[sent("a", at_s=3)], effects=[effect("a", at_s=30)], faults=kill))


def test_i11_takes_the_bound_of_the_fault_before_that_of_the_scenario() -> None:
    alarm = [fault("memory alarm", from_s=1, to_s=2, recovers_within_s=5)]
    assert_violated("I11", evidence(sent=[sent("a", at_s=3)], effects=[effect("a", at_s=8)], faults=alarm))


def test_i11_is_violated_by_a_backlog_that_is_drained_too_late() -> None:
    down = [fault("broker down", from_s=1, to_s=2, drains_within_s=120)]
    late: dict[str, Any] = {
        "sent": [sent("a", at_s=1.5), sent("b", at_s=3)],
        "tries": [tried("a", at_s=1.5), tried("b", at_s=3)],
    }
    soon = effect("b", at_s=4)
    assert_violated("I11", evidence(**late, effects=[soon, effect("a", at_s=123)], faults=down))
    assert_violated("I11", evidence(**late, effects=[soon], faults=down))
    assert_satisfied("I11", evidence(**late, effects=[soon, effect("a", at_s=121)], faults=down))


def test_i11_learns_nothing_from_a_fault_after_which_nothing_was_sent_or_another_one_came() -> None:
    assert_unchecked("I11", evidence(sent=[sent("a", at_s=1)], effects=[effect("a")], faults=[fault(from_s=1, to_s=2)]))
    assert_unchecked(
        "I11",
        evidence(
            sent=[sent("a", at_s=3)],
            effects=[effect("a", at_s=50)],
            faults=[fault(from_s=1, to_s=2), fault(from_s=2.5, to_s=None, number=2)],
        ),
    )


def test_i12_is_violated_by_an_effect_that_waits_while_another_consumer_is_in_trouble() -> None:
    trouble = [fault("blocks", "consumer blocks", from_s=0, to_s=20, of_consumer="blocks")]
    good = all_went_well("a")
    assert_violated("I12", evidence(**{**good, "effects": [effect("a", at_s=11)]}, faults=trouble))
    assert_violated("I12", evidence(**{**good, "effects": [effect("a", consumer="blocks")]}, faults=trouble))
    assert_satisfied("I12", evidence(**good, faults=trouble))


def test_i13_is_violated_by_an_event_that_its_consumer_never_got() -> None:
    good = all_went_well("a")
    assert_violated("I13", evidence(**{**good, "effects": []}))
    assert_satisfied("I13", evidence(**{**good, "effects": []}, dead_letters=(dead_letter("a"),)))
    assert_violated("I13", evidence(**{**good, "effects": []}, dead_letters=(dead_letter("a", is_resolved=True),)))
    assert_satisfied(
        "I13",
        evidence(
            **{**good, "effects": []},
            terms=terms(takes={"effects": ("Another",), "all": ()}),
            dead_letters=(dead_letter("a", "all"),),
        ),
    )
    assert_unchecked("I13", evidence(**good, terms=terms(takes={})))


def test_i14_is_violated_by_a_callback_that_was_given_up() -> None:
    refused: dict[str, Any] = {
        "sent": [sent("a")],
        "tries": [tried("a", 503)],
        "gave_up": [GaveUp(event_id="a", at_us=1)],
    }
    assert_violated("I14", evidence(**refused))
    assert_unchecked("I14", evidence(**refused, terms=terms(may_give_up="nothing ran")))


def test_i14_is_satisfied_by_a_callback_that_was_accepted_at_its_second_try() -> None:
    assert_unchecked("I14", evidence(**all_went_well("a")))
    assert_satisfied("I14", evidence(sent=[sent("a")], tries=[tried("a", 503), tried("a", 200, at_s=5)]))


def test_i15_is_violated_by_what_was_measured_beyond_its_bound() -> None:
    assert_violated("I15", evidence(measures=[measured(2.0, 1.0)]))
    assert_violated("I15", evidence(measures=[measured(float("nan"), 1.0)]))
    assert_satisfied("I15", evidence(measures=[measured(1.0, 1.0)]))


def test_i16_is_violated_by_a_secret_that_was_written_down() -> None:
    assert_violated("I16", evidence(searched=("logs/work-1.log",), secrets=("the key is in logs/work-1.log",)))
    assert_satisfied("I16", evidence(searched=("logs/work-1.log",)))
