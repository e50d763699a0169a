"""An HTTP server of the simulator: on one address, while it is entered."""

from typing import Self

from aiohttp import web


class HttpServer:
    """Serves an application. Port 0 is any that is free; `endpoint` names it once the server is entered."""

    def __init__(self, application: web.Application, *, host: str, port: int) -> None:
        self._application = application
        self._address = (host, port)
        self._runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> str:
        """HOST:PORT."""
        return f"{self._address[0]}:{self._address[1]}"

    @property
    def url(self) -> str:
        """`http://HOST:PORT`."""
        return f"http://{self.endpoint}"

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self._application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        self._address = self._runner.addresses[0][:2]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
