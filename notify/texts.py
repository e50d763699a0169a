"""What notices say: templates in English and Chinese, values made harmless for each kind of channel, cuts that fit.

A template has `{name}` where a value belongs. What stands in a template is trusted, as it is the operator's; what a
value holds comes from whoever could sign a callback, and must neither call people, nor make links, nor hide anything.
"""

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from notify.config import Kind

Language: TypeAlias = Literal["en", "zh"]

#: The languages of a notice, by what TIW_NOTIFY_LANGUAGE says.
LANGUAGES: dict[str, tuple[Language, ...]] = {"en": ("en",), "zh": ("zh",), "both": ("zh", "en")}

#: Of one value: an error's message is the longest that a template shows.
MAX_VALUE_CHARACTERS = 300

_DEFAULTS = Path(__file__).parent / "templates"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MAX_TEMPLATE_CHARACTERS = 4000
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


class Template(Struct, frozen=True, kw_only=True):
    """What a rule says in one language: a line, and what stands below it."""

    title: str
    text: str


Templates: TypeAlias = Mapping[Language, Mapping[str, Template]]


class LoadedTemplates(Struct, frozen=True, kw_only=True):
    """Templates, and a sentence for each of a user's that could not be taken: the default stands in its place."""

    templates: Templates
    problems: tuple[str, ...]


def load_templates(fields: Mapping[str, frozenset[str]], folder: Path | None = None) -> LoadedTemplates:
    """Read the templates of every rule in both languages; those in `folder` replace the defaults.

    `fields` says which values each rule has. A folder holds `en.toml`, `zh.toml`, or both, with a table of `title` and
    `text` for each rule that is replaced. What cannot be read or names no value is left out, and told.
    """
    problems: list[str] = []
    templates: dict[Language, dict[str, Template]] = {}
    for language in LANGUAGES["both"]:
        templates[language] = dict(_read_file(_DEFAULTS / f"{language}.toml", fields, problems.append))
        if folder is not None:
            templates[language] |= _read_file(folder / f"{language}.toml", fields, problems.append)
    if folder is not None and not any((folder / f"{language}.toml").exists() for language in LANGUAGES["both"]):
        problems.append(f"{folder} has neither en.toml nor zh.toml: put one there, or correct TIW_NOTIFY_TEMPLATES")
    return LoadedTemplates(templates=templates, problems=tuple(problems))


def _read_file(
    file: Path, fields: Mapping[str, frozenset[str]], report: Callable[[str], None]
) -> Iterator[tuple[str, Template]]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        report(f"{file} cannot be read ({error}): the default templates are used")
        return
    for rule, table in tables.items():
        wrong = f"there is no such rule, only {', '.join(sorted(fields))}" if rule not in fields else None
        wrong = wrong or _wrong(table, fields.get(rule, frozenset()))
        if wrong is None:
            yield rule, Template(title=table["title"], text=table["text"].strip("\n"))
        else:
            report(f"{file}, [{rule}]: {wrong}; the default template is used")


def _wrong(table: object, fields: frozenset[str]) -> str | None:
    """Return what is wrong with a table of a file of templates, or None."""
    if not isinstance(table, dict) or table.keys() != {"title", "text"}:
        return "it must have a title and a text, and nothing else"
    title, text = table["title"], table["text"]
    if not isinstance(title, str) or not isinstance(text, str):
        return "title and text must be texts in quotes"
    if not title.strip() or len(title.splitlines()) != 1:
        return "its title must be one line"
    if len(title) + len(text) > _MAX_TEMPLATE_CHARACTERS:
        return f"it must have at most {_MAX_TEMPLATE_CHARACTERS} characters"
    unknown = sorted(set(_PLACEHOLDER.findall(title + text)) - fields)
    if unknown:
        return f"there is no value {{{unknown[0]}}} here, only {', '.join(sorted(fields))}"
    return None


class Part(Struct, frozen=True, kw_only=True):
    """A message in one language. Where not all lines fit, `more` stands for the others: `{more}` of them."""

    title: str
    lines: tuple[str, ...]
    more: str = ""


class Message(Struct, frozen=True, kw_only=True):
    """What is to be sent over a channel, before its limits: a part in each language, the first one leading.

    `message_id` is the same for every try to send the same. `kind_of_notice` is the rule, or `digest`. `facts` is what
    programs read of each notice in it. `created_at_s` is when the first of them came up.
    """

    message_id: str
    kind_of_notice: str
    severity: str
    created_at_s: float
    parts: tuple[Part, ...]
    facts: tuple[Mapping[str, object], ...]

    @property
    def title(self) -> str:
        """One line that says it all, in each language."""
        return " / ".join(part.title for part in self.parts)


def one_line(value: object) -> str:
    """Return a value as one line that shows what it is: None is empty.

    Control characters and line ends become spaces. What is invisible or turns the direction of writing is left out,
    and what is no character is shown as U+FFFD. At most `MAX_VALUE_CHARACTERS`.
    """
    if value is None:
        return ""
    text = str(value)[: 4 * MAX_VALUE_CHARACTERS]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _STAND_INS.get(unicodedata.category(c), " ") for c in text)
    text = " ".join(text.split())
    if len(text) > MAX_VALUE_CHARACTERS:
        text = text[: MAX_VALUE_CHARACTERS - 1] + _ELLIPSIS
    return text


#: What stands for a character that is not printed, by its category; a space for all others.
_STAND_INS = {
    "Cf": "",
    **dict.fromkeys(("Cn", "Co", "Cs"), "\N{REPLACEMENT CHARACTER}"),
}

#: What begins a mention, a link or a format somewhere, and the wide form that shows the same and begins nothing:
#: Feishu <at user_id="all">, [text](address), **bold**; WeCom <@id>; Slack <!channel>, `code`, ~struck~; @all.
_WIDE = {ord(c): chr(ord(c) + 0xFEE0) for c in "<>[]@*`~"}

_CHATS: frozenset[Kind] = frozenset({"wecom", "dingtalk", "feishu", "slack"})


def escape(kind: Kind, value: object) -> str:
    """Return a value as a channel of this kind shows it, and does nothing else."""
    text = one_line(value)
    if kind not in _CHATS:
        return text
    # Or chats make a link of it that a person may follow.
    return text.translate(_WIDE).replace("://", ":\N{FULLWIDTH SOLIDUS}\N{FULLWIDTH SOLIDUS}")


def fill(template: Template, values: Mapping[str, str]) -> Part:
    """Put values, already escaped, into a template. A line of it that has values, all of them empty, is left out."""
    lines = []
    for line in template.text.splitlines():
        names = _PLACEHOLDER.findall(line)
        if not names or any(values[name] for name in names):
            lines.append(_filled(line, values))
    return Part(title=_filled(template.title, values), lines=tuple(lines))


def _filled(line: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]] or "?", line)


def utf8_size(text: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    return len(text.encode())


def cut(text: str, at_most: int, size: Callable[[str], int] = utf8_size) -> str:
    """Return `text`, or its beginning and an ellipsis, so that `size` of it is at most `at_most`.

    Never cuts inside a character, nor between a letter and the marks on it.
    """
    if size(text) <= at_most:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if size(text[:middle] + _ELLIPSIS) <= at_most:
            fits = middle
        else:
            too_long = middle
    while fits and unicodedata.combining(text[fits]):
        fits -= 1
    beginning = text[:fits].rstrip()
    return beginning + _ELLIPSIS if size(beginning + _ELLIPSIS) <= at_most else ""


def fit(parts: Sequence[Part], at_most: int, size: Callable[[str], int] = utf8_size) -> str:
    """Return the parts under each other, with as many of their lines as fit; never more than `at_most`.

    `size` of a text must be about that of its pieces together. Each part gets the same, and what another leaves.
    """
    between = "\n\n"
    left = at_most - (len(parts) - 1) * size(between)
    whole = [_whole(part) for part in parts]
    fitted: dict[int, str] = {}
    # The smallest first: what it leaves is the others'.
    for number in sorted(range(len(parts)), key=lambda number: size(whole[number])):
        fitted[number] = _fit_one(parts[number], left // (len(parts) - len(fitted)), size)
        left -= size(fitted[number])
    return cut(between.join(fitted[number] for number in range(len(parts))), at_most, size)


def _whole(part: Part) -> str:
    return "\n".join((part.title, *part.lines))


def _fit_one(part: Part, at_most: int, size: Callable[[str], int]) -> str:
    whole = _whole(part)
    if size(whole) <= at_most:
        return whole
    if not part.more:
        return cut(whole, at_most, size)
    shown = part.title
    for number, line in enumerate(part.lines):
        rest = part.more.replace("{more}", str(len(part.lines) - number - 1))
        if size(f"{shown}\n{line}\n{rest}") > at_most:
            break
        shown = f"{shown}\n{line}"
    missing = len(part.lines) - (shown.count("\n") - part.title.count("\n"))
    return cut(f"{shown}\n{part.more.replace('{more}', str(missing))}", at_most, size)
