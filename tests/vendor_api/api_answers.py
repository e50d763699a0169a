"""Answers of the API, as its own examples have them, and with a member or two changed."""

import json
from typing import Any

from tests.schemas.bodies import sample

APP = 1400000001
TASK = "ghucnligqtgtvk2624mb"

#: Long after every time here.
NOW_S = 1_800_000_000.0


def answer(**response: Any) -> bytes:
    return json.dumps({"Response": {"RequestId": "d290f1ee-6c54-4b01-90e6-d701748f0851", **response}}).encode()


def error(code: object, message: object = "m") -> bytes:
    return answer(Error={"Code": code, "Message": message})


def finished_members(**changed: Any) -> dict[str, Any]:
    """Return what DescribeOnlineRecord says of the recording whose callback is the sample `finished.json`.

    `...` takes a member out.
    """
    said = json.loads(sample("finished.json"))["EventData"]
    also = {"Status": "FINISHED", "ReplayUrl": None, "Interrupts": None}
    return {name: value for name, value in {**said, **also, **changed}.items() if value is not ...}


def finished(**changed: Any) -> bytes:
    return answer(**finished_members(**changed))
