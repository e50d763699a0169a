"""aiohttp as its documentation begins: an Application that reads the body and answers. It publishes nothing."""

import uvloop
from aiohttp import web

from bench.peers.python.accepting import ANSWER, PATH, PORT


async def callback(request: web.Request) -> web.Response:
    """Read the body and answer."""
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application()
    app.router.add_post(PATH, callback)
    web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
