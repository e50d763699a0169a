"""Settings as a person may see them."""

import re
from typing import cast

import msgspec

from tiw.settings import Settings


def masked(settings: Settings, *, reveal: bool = False) -> dict[str, object]:
    """Return the settings as JSON values, with secrets masked; `reveal` shows the keys and the path token."""
    values = msgspec.to_builtins(settings, str_keys=True, enc_hook=str)
    values["allow_unsigned"] = sorted(settings.allow_unsigned)
    values["http"] = str(settings.http)
    values["admin"] = None if settings.admin is None else str(settings.admin)
    values["amqp_urls"] = [_without_password(url) for url in settings.amqp_urls]
    values["database_url"] = _without_password(settings.database_url)
    if not reveal:
        values["callback_keys"] = None if settings.callback_keys is None else "***"
        values["path_token"] = None if settings.path_token is None else "***"
    return cast("dict[str, object]", values)


def _without_password(url: str) -> str:
    # Up to the last @: a password may hold one although it should not.
    masked_authority = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", masked_authority, flags=re.IGNORECASE)
