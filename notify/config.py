"""The channels through which people are told: what TIW_NOTIFY names, and how a mistake in it is said."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct, structs

Kind: TypeAlias = Literal["wecom", "dingtalk", "feishu", "slack", "webhook", "email"]

KINDS: tuple[Kind, ...] = get_args(Kind)

Security: TypeAlias = Literal["smtp", "smtps", "starttls"]


class NotifyError(Exception):
    """Raised when notices cannot be sent as asked; root of this package's errors."""


class ChannelsError(NotifyError):
    """Raised when channels cannot be what they are said to be. Its text says which and why, never an address."""


class MailServer(Struct, frozen=True, kw_only=True):
    """Where e-mail is handed in, and between whom. `smtp` encrypts if the server offers it, the others always."""

    host: str
    port: int
    security: Security
    user: str
    password: str
    sender: str
    recipients: tuple[str, ...]


class Channel(Struct, frozen=True, kw_only=True):
    """One way to tell somebody.

    `name` is unique, and shown; `url` is a secret, as the addresses of robots are their passwords. `secret` signs, if
    the kind signs. `keyword` begins every message. `mentions` are who is called in a chat. `mail`: of e-mail alone.
    """

    name: str
    kind: Kind
    url: str
    secret: str = ""
    keyword: str = ""
    mentions: tuple[str, ...] = ()
    mail: MailServer | None = None

    def __repr__(self) -> str:
        return f"Channel({self.name!r}, {self.kind!r})"

    @property
    def address_id(self) -> str:
        """What names the address without telling it: the same for all channels and processes that use it."""
        return hashlib.sha256(f"notify {self.url}".encode()).hexdigest()[:32]


class _Takes(Struct, frozen=True, kw_only=True):
    """What a kind takes behind the # of its address, and the query that its address has with the vendor itself."""

    parameters: frozenset[str]
    example: str
    vendor_host: str = ""
    query: str = ""


_TAKES: dict[Kind, _Takes] = {
    "wecom": _Takes(
        parameters=frozenset({"name", "keyword", "mention"}),
        example="https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=KEY",
        vendor_host="qyapi.weixin.qq.com",
        query="key",
    ),
    "dingtalk": _Takes(
        parameters=frozenset({"name", "keyword", "mention", "secret"}),
        example="https://oapi.dingtalk.com/robot/send?access_token=TOKEN",
        vendor_host="oapi.dingtalk.com",
        query="access_token",
    ),
    "feishu": _Takes(
        parameters=frozenset({"name", "keyword", "mention", "secret"}),
        example="https://open.feishu.cn/open-apis/bot/v2/hook/TOKEN",
    ),
    "slack": _Takes(
        parameters=frozenset({"name", "keyword", "mention"}), example="https://hooks.slack.com/services/T/B/TOKEN"
    ),
    "webhook": _Takes(parameters=frozenset({"name", "secret"}), example="https://example.com/hook"),
    "email": _Takes(
        parameters=frozenset({"name", "keyword"}), example="smtps://USER:PASSWORD@smtp.example.com/?to=A@EXAMPLE.COM"
    ),
}

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MENTION = re.compile(r"[A-Za-z0-9_+.-]{1,64}")
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
_MAX_KEYWORD_CHARACTERS = 40
_PORTS: dict[Security, int] = {"smtp": 25, "smtps": 465, "starttls": 587}

#: The sizes that Standard Webhooks asks of a secret: https://github.com/standard-webhooks/standard-webhooks
_SECRET_BYTES = range(24, 65)


def parse_channels(text: str) -> tuple[Channel, ...]:
    """Read channels, KIND=URL, one a line or separated by commas, each with parameters behind a #.

    Lines that begin with # are passed over. Raises `ChannelsError` with a sentence that says which channel is wrong
    and what to do, and quotes no address.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    if not entries:
        raise ChannelsError("names no channel: it is KIND=URL, one a line or separated by commas")
    return _named([_channel(entry, f"channel {number}") for number, entry in enumerate(entries, start=1)])


def _channel(entry: str, where: str) -> Channel:
    before, equals, url = entry.partition("=")
    kind = next((kind for kind in KINDS if kind == before.strip().lower()), None)
    if kind is None or not equals:
        # Not the word itself: without a KIND it is the beginning of an address.
        raise ChannelsError(
            f"{where} is not KIND=URL with a KIND of {', '.join(KINDS)}; a comma within an address is %2C"
        )
    where = f"{where}, {kind}"
    url = url.strip()
    if not url.isprintable() or " " in url:
        raise ChannelsError(f"{where}: its address has a space or a control character in it: write it as %20")
    address, _, fragment = url.partition("#")
    parameters = _parameters(fragment, kind, where)
    split = _split(address, kind, where)
    mail = _mail(split, where) if kind == "email" else None
    if mail is None:
        _require_web_address(split, kind, where)
    secret = parameters.get("secret", [""])[0]
    if kind == "webhook" and secret:
        _require_webhook_secret(secret, where)
    return Channel(
        name=_value(parameters, "name", where, _is_name, "1 to 32 of a-z, 0-9, _ and -"),
        kind=kind,
        url=address,
        secret=secret,
        keyword=_value(parameters, "keyword", where, _is_keyword, "one line of at most 40 characters"),
        mentions=_mentions(parameters.get("mention", []), where),
        mail=mail,
    )


def _parameters(fragment: str, kind: Kind, where: str) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    # A + stands for itself: secrets in base64 have some, and nobody writes spaces so behind a #.
    for name, value in parse_qsl(fragment.replace("+", "%2B"), keep_blank_values=True):
        parameters.setdefault(name, []).append(value)
    known = _TAKES[kind].parameters
    if (fragment and not parameters) or not parameters.keys() <= known:
        # Not the word itself: it may be a part of a secret.
        raise ChannelsError(
            f"{where}: behind the # it takes {', '.join(f'{name}=' for name in sorted(known))} and nothing else, "
            "with & between them"
        )
    if any(len(values) > 1 for name, values in parameters.items() if name != "mention"):
        raise ChannelsError(f"{where}: behind the # only mention= may stand more than once")
    return parameters


def _split(address: str, kind: Kind, where: str) -> SplitResult:
    try:
        split = urlsplit(address)
        has_host = bool(split.hostname) and (split.port is None or split.port > 0)
    except ValueError:
        has_host = False
    if not has_host:
        raise ChannelsError(f"{where}: its address cannot be read: it looks like {_TAKES[kind].example}")
    return split


def _require_web_address(split: SplitResult, kind: Kind, where: str) -> None:
    takes = _TAKES[kind]
    if split.scheme not in ("https", "http"):
        raise ChannelsError(f"{where}: its address must begin with https:// or http://, such as {takes.example}")
    if not split.netloc.isascii() or not split.path.isascii() or not split.query.isascii():
        raise ChannelsError(f"{where}: its address must be ASCII: write other characters percent-encoded")
    query = dict(parse_qsl(split.query))
    if takes.query and split.hostname == takes.vendor_host and not query.get(takes.query):
        raise ChannelsError(f"{where}: its address lacks {takes.query}=: copy the whole address, {takes.example}")


def _require_webhook_secret(secret: str, where: str) -> None:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except binascii.Error:
        size = 0
    if size not in _SECRET_BYTES:
        raise ChannelsError(
            f"{where}: its secret must be whsec_ and 24 to 64 bytes as base64: "
            'make one with `echo "whsec_$(openssl rand -base64 32)"`'
        )


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_keyword(keyword: str) -> bool:
    return 0 < len(keyword) <= _MAX_KEYWORD_CHARACTERS and keyword.isprintable()


def _value(parameters: dict[str, list[str]], name: str, where: str, is_good: Callable[[str], bool], wanted: str) -> str:
    if name not in parameters:
        return ""
    value = parameters[name][0].strip()
    if not is_good(value):
        raise ChannelsError(f"{where}: {name}= must be {wanted}")
    return value


def _mentions(values: Sequence[str], where: str) -> tuple[str, ...]:
    if not all(_MENTION.fullmatch(value) for value in values):
        raise ChannelsError(
            f"{where}: mention= must be all, or an id or telephone number of letters, digits and _ + . -; "
            "for several, mention=A&mention=B"
        )
    return tuple(values)


def _mail(split: SplitResult, where: str) -> MailServer:
    security = next((scheme for scheme in _PORTS if scheme == split.scheme), None)
    if security is None:
        raise ChannelsError(
            f"{where}: its address must begin with smtps://, starttls:// or smtp://, such as {_TAKES['email'].example}"
        )
    if split.path not in ("", "/"):
        raise ChannelsError(f"{where}: a / in its user or password is %2F, and an @ is %40")
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(split.query.replace("+", "%2B"), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    if not query.keys() <= {"to", "from"} or not query.get("to") or len(query.get("from", [])) > 1:
        raise ChannelsError(
            f"{where}: its address ends with ?to=A@B, for several ?to=A@B&to=C@D, and may have &from=E@F"
        )
    user, password = unquote(split.username or ""), unquote(split.password or "")
    if bool(user) != bool(password):
        raise ChannelsError(f"{where}: its address has a user without a password, or the other way round")
    recipients = tuple(query["to"])
    host = split.hostname or ""
    sender = query["from"][0] if "from" in query else _sender(user, host) or recipients[0]
    if not all(_MAIL_ADDRESS.fullmatch(one) for one in (*recipients, sender)):
        raise ChannelsError(f"{where}: to= and from= must be addresses such as NAME@EXAMPLE.COM, in ASCII")
    return MailServer(
        host=host,
        port=split.port or _PORTS[security],
        security=security,
        user=user,
        password=password,
        sender=sender,
        recipients=recipients,
    )


def _sender(user: str, host: str) -> str:
    """Return who sends if nobody is named: the user, whose name is mostly an address."""
    if not user or _MAIL_ADDRESS.fullmatch(user):
        return user
    return f"{user}@{host}"


def _named(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """Give those a name that have none: their kind, and a number from the second on."""
    given = [channel.name for channel in channels if channel.name]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ChannelsError(f"two channels are called {twice}: choose another name= for one of them")
    taken = set(given)
    named: list[Channel] = []
    for channel in channels:
        name = channel.name
        number = 1
        while not name:
            wanted = channel.kind if number == 1 else f"{channel.kind}-{number}"
            number += 1
            name = "" if wanted in taken else wanted
        taken.add(name)
        named.append(structs.replace(channel, name=name))
    return tuple(named)
