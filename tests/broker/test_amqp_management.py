"""What is made of the management API's answers."""

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from broker.amqp.endpoints import Endpoint
from broker.amqp.inspecting import Management


async def test_an_experimental_feature_flag_need_not_be_enabled() -> None:
    async def flags(request: web.Request) -> web.Response:
        del request
        return web.json_response(
            [
                {"name": "quorum_queue", "state": "enabled", "stability": "stable"},
                {"name": "stream_filtering", "state": "disabled", "stability": "stable"},
                # As RabbitMQ 4.0 has it from the start.
                {"name": "khepri_db", "state": "disabled", "stability": "experimental"},
                {"name": "of_a_version_that_does_not_tell", "state": "disabled"},
            ]
        )

    app = web.Application()
    app.router.add_get("/api/feature-flags", flags)
    async with TestServer(app) as server:
        endpoint = Endpoint(url=URL("amqp://127.0.0.1/"), name="127.0.0.1")
        management = Management(endpoint, url=str(server.make_url("/")))
        assert await management.feature_flags_disabled() == ("stream_filtering", "of_a_version_that_does_not_tell")
