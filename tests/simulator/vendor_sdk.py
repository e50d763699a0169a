"""The vendor's own SDK, asked over HTTP, for tests of the fake of its API."""

import asyncio
import importlib
import json
from typing import Any

from simulator import VendorApi

TIW = "2019-09-19"


class SdkError(Exception):
    """What the SDK raised: the code it gives, and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Sdk:
    """Calls one API with one pair of secrets; each call is made in a thread, as the SDK blocks."""

    def __init__(self, endpoint: str, *, secret_id: str, secret_key: str, region: str = "ap-guangzhou") -> None:
        # Imported by name: the package has no types.
        credential = importlib.import_module("tencentcloud.common.credential")
        http = importlib.import_module("tencentcloud.common.profile.http_profile")
        client = importlib.import_module("tencentcloud.common.profile.client_profile")
        self._models: Any = importlib.import_module("tencentcloud.tiw.v20190919.models")
        self._exceptions: Any = importlib.import_module("tencentcloud.common.exception")
        profile = client.ClientProfile(httpProfile=http.HttpProfile(protocol="http", endpoint=endpoint, reqTimeout=10))
        pair = credential.Credential(secret_id, secret_key)
        tiw = importlib.import_module("tencentcloud.tiw.v20190919.tiw_client")
        common = importlib.import_module("tencentcloud.common.common_client")
        self._client: Any = tiw.TiwClient(pair, region, profile)
        self._common: Any = common.CommonClient("tiw", TIW, pair, region, profile)

    async def call(self, action: str, **params: Any) -> dict[str, Any]:
        """Call by the SDK's own method and model and return what it read; for calls that the package has."""
        request = getattr(self._models, f"{action}Request")()
        request.from_json_string(json.dumps(params))
        answer = await self._in_thread(getattr(self._client, action), request)
        return dict(json.loads(answer.to_json_string()))

    async def call_json(self, action: str, **params: Any) -> dict[str, Any]:
        """Call by name, for calls that the package lacks."""
        answer = await self._in_thread(self._common.call_json, action, params)
        return dict(answer["Response"])

    async def refused(self, action: str, **params: Any) -> SdkError:
        """Return the error with which a call by name ends."""
        try:
            answer = await self.call_json(action, **params)
        except SdkError as error:
            return error
        raise AssertionError(f"{action} was answered {answer}")

    async def _in_thread(self, call: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(call, *arguments)
        except self._exceptions.TencentCloudSDKException as error:
            raise SdkError(str(error.get_code()), str(error.get_message())) from error


def sdk_of(api: VendorApi, **changes: str) -> Sdk:
    """Return the SDK as it asks this API, with its secrets and in a region of its site but for `changes`."""
    region = "ap-guangzhou" if api.vendor.site == "china" else "ap-singapore"
    secrets = {"secret_id": api.secret_id, "secret_key": api.secret_key, "region": region}
    return Sdk(api.endpoint, **secrets | changes)
