"""From notices to a message: the values that its templates need, one notice alone or many in a digest."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from notify.config import Kind
from notify.rules import DIGEST, RULES, Data
from notify.texts import Language, Message, Part, Templates, escape, fill, one_line
from vendor_api import Explanation, explain_failure, explain_pause


class Content(Struct, frozen=True, kw_only=True):
    """What one notice tells."""

    notice_id: str
    rule: str
    data: Data
    created_at_s: float


class Wording(Struct, frozen=True, kw_only=True):
    """How notices are put into words: in which languages, and by which templates."""

    languages: tuple[Language, ...]
    templates: Templates


def compose(notices: Sequence[Content], kind: Kind, wording: Wording, *, now_s: float) -> Message:
    """Return the message that tells of `notices`, the most urgent first, over a channel of this kind.

    One says all of it; many have a line each. The same notices give the same `message_id`.
    """
    told = {
        language: [_part(notice, kind, language, wording, now_s) for notice in notices]
        for language in wording.languages
    }
    if len(notices) == 1:
        message_id, what = notices[0].notice_id, notices[0].rule
        parts = tuple(alone for (alone,) in told.values())
    else:
        joined = "\n".join(sorted(notice.notice_id for notice in notices))
        # Not one of theirs: who knows a message by its id would take a digest for the notice, or the other way round.
        message_id, what = hashlib.sha256(joined.encode()).hexdigest()[:32], DIGEST
        parts = tuple(_digest(each, language, wording) for language, each in told.items())
    severities = {RULES[notice.rule].severity for notice in notices}
    return Message(
        message_id=message_id,
        kind_of_notice=what,
        severity="critical" if "critical" in severities else "warning",
        created_at_s=min(notice.created_at_s for notice in notices),
        parts=parts,
        facts=tuple(
            _facts(notice, [told[language][number].title for language in told]) for number, notice in enumerate(notices)
        ),
    )


def title_of(rule: str, data: Data, wording: Wording, *, now_s: float) -> str:
    """Return the first line of a notice as a listing shows it, in the first language; its rule, if nobody knows it."""
    if rule not in RULES:
        return rule
    notice = Content(notice_id="", rule=rule, data=data, created_at_s=now_s)
    return _part(notice, "email", wording.languages[0], wording, now_s).title


def _part(notice: Content, kind: Kind, language: Language, wording: Wording, now_s: float) -> Part:
    return fill(
        wording.templates[language][notice.rule],
        {name: escape(kind, _value(name, notice.data, language, now_s)) for name in RULES[notice.rule].fields},
    )


def _digest(each: Sequence[Part], language: Language, wording: Wording) -> Part:
    template = wording.templates[language][DIGEST]
    part = fill(template, {"count": str(len(each)), "more": "{more}"})
    return Part(title=part.title, lines=tuple(f"- {one.title}" for one in each), more="\n".join(part.lines))


def _facts(notice: Content, titles: Sequence[str]) -> Mapping[str, object]:
    return {
        "notice_id": notice.notice_id,
        "rule": notice.rule,
        "severity": RULES[notice.rule].severity,
        "title": " / ".join(titles),
        "created_at": _iso(notice.created_at_s),
        **{name: value for name, value in notice.data.items() if value is not None},
    }


def _value(name: str, data: Data, language: Language, now_s: float) -> str:
    """Return a value of a template: as it is, or made of another of the notice's data."""
    made_of = _MADE_OF.get(name)
    if made_of is not None:
        source, make = made_of
        origin = data.get(source)
        return make(origin, language, now_s) if isinstance(origin, int) else ""
    if name == "explanation":
        return _in(language, explain_failure(one_line(data.get("error_message"))))
    if name == "reason":
        # Kept in English, as logs have it; what else is a reason is shown as it is.
        reason = one_line(data.get("reason"))
        return _in(language, explain_pause(reason)) or reason if language != "en" else reason
    value = data.get(name)
    return moment(value) if name.endswith("_at") and isinstance(value, int) else one_line(value)


def _in(language: Language, explanation: Explanation | None) -> str:
    return "" if explanation is None else {"en": explanation.en, "zh": explanation.zh}[language]


#: Values that are made of another one, a number.
_MADE_OF: dict[str, tuple[str, Callable[[int, Language, float], str]]] = {
    "minutes_left": ("stops_at", lambda at, _, now_s: str(max(0, math.ceil((at - now_s) / 60)))),
    "hours_left": ("expires_at", lambda at, _, now_s: str(max(0, math.floor((at - now_s) / 3600)))),
    "duration": ("since_at", lambda at, language, now_s: duration(now_s - at, language)),
    "late": ("late_s", lambda late_s, language, _: duration(late_s, language)),
}


def moment(at_s: float) -> str:
    """Return a point in time as a person reads it, in the time zone of this process; a number if it is no date."""
    try:
        local = datetime.fromtimestamp(at_s, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(at_s)
    offset = local.utcoffset() or timedelta()
    zone = "UTC" if not offset else f"UTC{local:%z}"[:-2] + f":{local:%z}"[-2:]
    return f"{local:%Y-%m-%d %H:%M} {zone}"


_UNITS: dict[Language, tuple[str, str, str]] = {"en": ("d", "h", "min"), "zh": ("天", "小时", "分钟")}


def duration(length_s: float, language: Language) -> str:
    """Return a length of time as a person reads it, in its two largest units."""
    minutes = max(0, round(length_s / 60))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    named = [(number, unit) for number, unit in zip((days, hours, minutes), _UNITS[language], strict=True)]
    while len(named) > 1 and not named[0][0]:
        del named[0]
    return " ".join(f"{number} {unit}" for number, unit in named[:2] if number or len(named) == 1)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
