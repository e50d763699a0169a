"""What schemathesis loads: it signs every other callback, so that not all of them are refused at once.

https://schemathesis.readthedocs.io/en/stable/guides/extending/
"""

import json
import time
import zlib
from typing import Any

import schemathesis

from chaos.fuzzing.serving import KEYS, PATH_TOKEN, SDK_APP_ID, sign

_VALID_S = 3600


@schemathesis.hook  # type: ignore[untyped-decorator]  # it is not installed where types are checked
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Sign the body, and set the path token, of about half of the requests."""
    del context, kwargs
    chance = zlib.crc32(json.dumps(case.body, default=repr).encode())
    if chance & 1 and isinstance(case.body, dict):
        expire_time = int(time.time()) + _VALID_S
        key = KEYS[SDK_APP_ID][0]
        case.body |= {
            "SdkAppId": SDK_APP_ID,
            "ExpireTime": expire_time,
            "Sign": sign(key, b"%d" % expire_time).decode(),
        }
    if chance & 2 and "path_token" in (case.path_parameters or {}):
        case.path_parameters["path_token"] = PATH_TOKEN
