"""From values to a page: templates, texts in two languages, and text of callbacks that stays text."""

import asyncio
import hashlib
import shlex
import tomllib
import unicodedata
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from archive import PlaceError
from broker import BrokerError
from console.requests import Language, Translate, Unknown
from store import StoreError, microseconds

_FOLDER: Final = Path(__file__).resolve().parent
STATIC: Final = _FOLDER / "static"

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

#: A text that a table or a heading shows is cut here; bodies have a page of their own.
SHOWN_CHARACTERS: Final = 2000

#: What a part of a page may take; after that the page says what it does not know.
PATIENCE_S: Final = 5.0

T = TypeVar("T")


async def attempt(asked: Awaitable[T], *, timeout_s: float = PATIENCE_S) -> T | Unknown:
    """Return what was asked for, or why it is not known: the page is shown all the same."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asked
    except TimeoutError:
        return Unknown(reason=f"no answer within {timeout_s:g} s")
    except (StoreError, BrokerError, PlaceError) as error:
        return Unknown(reason=str(error))


def command_line(*words: object) -> str:
    """Return a command as a person types it: None is left out, and what is no plain word is quoted."""
    return shlex.join(plain(str(word), limit=SHOWN_CHARACTERS) for word in words if word is not None)


def option(name: str, value: object) -> tuple[str, ...]:
    """Return an option of a command, nothing where it has no value."""
    return () if value is None else (name, str(value))


class Texts:
    """Every text of the console in every language, of the files in `texts/`."""

    def __init__(self, folder: Path = _FOLDER / "texts") -> None:
        self._texts: dict[str, dict[str, str]] = {}
        for file in sorted(folder.glob("*.toml")):
            for group, texts in tomllib.loads(file.read_text(encoding="utf-8")).items():
                _collect(self._texts, group, texts)

    @property
    def texts(self) -> Mapping[str, Mapping[str, str]]:
        """The texts by key, then by language; `en_one` is that for one of something."""
        return self._texts

    def translator(self, language: Language) -> Translate:
        """Return what gives the texts of one language. It raises `KeyError` for a key that is not there."""

        def translate(key: str, **values: object) -> str:
            texts = self._texts[key]
            text = texts[language]
            if values.get("count") == 1:
                text = texts.get(f"{language}_one", text)
            return text.format(**values) if values else text

        return translate


def _collect(found: dict[str, dict[str, str]], key: str, texts: Mapping[str, Any]) -> None:
    if any(isinstance(text, str) for text in texts.values()):
        found[key] = cast("dict[str, str]", dict(texts))
        return
    for name, inner in texts.items():
        _collect(found, f"{key}.{name}", inner)


def language_of(accepted: str, chosen: str | None) -> Language:
    """Return the language of a reader: what was chosen, else what the browser prefers (RFC 9110, 12.5.4)."""
    if chosen in LANGUAGES:
        return chosen
    weighed: list[tuple[float, int, Language]] = []
    for place, part in enumerate(accepted[:1000].split(",")):
        name, _, weight = part.strip().partition(";q=")
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES:
            try:
                weighed.append((-float(weight or 1), place, language))
            except ValueError:
                continue
    return min(weighed)[2] if weighed else "en"


#: They turn the direction of what follows: https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(value: object, limit: int = SHOWN_CHARACTERS, *, lines: bool = False) -> str:
    """Return text of anybody as it may stand on a page: nothing in it is invisible, turns the direction or is endless.

    `lines`: breaks of lines and tabs stay.
    """
    text = "" if value is None else str(value)
    cut = text[:limit]
    if lines:
        shown = "\n".join(_visible(line, "\t") for line in cut.replace("\r\n", "\n").split("\n"))
    else:
        shown = _visible(cut)
    return shown if len(text) <= limit else f"{shown}…"


def _visible(text: str, stays: str = "") -> str:
    # Hardly any text has something else in it, and a page has thousands of them.
    if text.isprintable():
        return text
    return "".join(c if _is_visible(c) or c in stays else "\N{REPLACEMENT CHARACTER}" for c in text)


def _is_visible(character: str) -> bool:
    return character == " " or (
        character not in _DIRECTION and unicodedata.category(character) not in ("Cc", "Cs", "Cn", "Zl", "Zp")
    )


def iso_us(at_us: int) -> str:
    """Return microseconds since the Unix epoch as a `time` element has them; nothing for what is no date."""
    return iso_s(at_us / 1_000_000)


def iso_s(at_s: float) -> str:
    """Return seconds since the Unix epoch as `iso_us` does."""
    at = _datetime(at_s)
    return "" if at is None else at.isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def utc_us(at_us: int) -> str:
    """Return microseconds since the Unix epoch as a person reads them, in UTC; what is no date as the number it is."""
    return utc_s(at_us / 1_000_000) if _datetime(at_us / 1_000_000) else str(at_us)


def utc_s(at_s: float) -> str:
    """Return seconds since the Unix epoch as `utc_us` does."""
    at = _datetime(at_s)
    return str(at_s) if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def _datetime(at_s: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(at_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def event_word(event_type: str, t: Translate) -> str | None:
    """Return what a person calls events of a type, None where there is no word for it."""
    try:
        return t(f"event_type.{event_type}")
    except KeyError:
        return None


def event_name(event_type: str, t: Translate) -> str:
    """Return the word for events of a type with the name that stands in callbacks; where there is no word, that."""
    word, name = event_word(event_type, t), plain(event_type, 120)
    return name if word is None else t("event_named", word=word, name=name)


def duration_s(seconds: float) -> str:
    """Return a length of time as h:mm:ss, of days as `3 d 04:05:06`."""
    whole = round(abs(seconds))
    days, rest = divmod(whole, 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{'-' if seconds < 0 else ''}{f'{days} d ' if days else ''}{clock}"


def size(count: int) -> str:
    """Return a number of bytes with a unit."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(count) >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


@cache
def static_names() -> Mapping[str, str]:
    """Return, for each file of `static/`, the name under which it is served: it has a digest of what is in it.

    So a browser keeps it for ever, and gets the new one with the next version.
    """
    names = {}
    for file in sorted(path for path in STATIC.rglob("*") if path.is_file()):
        name = file.relative_to(STATIC).as_posix()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        names[name] = f"{digest}/{name}"
    return names


def static(name: str) -> str:
    """Return the address of a file of `static/`."""
    return f"/static/{static_names()[name]}"


@cache
def _environment() -> Environment:
    """Return what has the templates, once for a process: to translate them takes longer than to fill them in."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "plain": plain,
        "iso_us": iso_us,
        "iso_s": iso_s,
        "utc_us": utc_us,
        "utc_s": utc_s,
        "us_of_iso": microseconds,
        "event_word": event_word,
        "event_name": event_name,
        "duration_s": duration_s,
        "size": size,
    }
    environment.tests["unknown"] = lambda value: isinstance(value, Unknown)
    environment.globals["static"] = static
    return environment


def render(template: str, values: Mapping[str, object]) -> str:
    """Return a page, or a part of one. Strings among the values become text; `Markup` is refused."""
    wrong = [name for name, value in values.items() if isinstance(value, Markup)]
    if wrong:
        raise TypeError(f"markup is made by templates alone: {', '.join(wrong)}")
    return _environment().get_template(template).render(values)
