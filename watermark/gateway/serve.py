"""Running a gateway: its sockets, its server, and what happens when the process is told to end."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType
from typing import Any

import uvicorn

from watermark.errors import refused_write
from watermark.gateway.app import Gateway
from watermark.gateway.operator import App

_SECONDS_TO_END = 30
"""What clients that are still being served have when the process is told to end."""


def listening(host: str, port: int, what: str) -> socket.socket:
    """A socket that takes connections; port 0 takes a free one.

    Raises
    ------
    DyetraceError, MachineError
        The address is none of this machine, or taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise refused_write(f"cannot listen on {host}, port {port} ({what})", error) from None


class Running(uvicorn.Server):
    """A server for a gateway's application.

    Parameters
    ----------
    gateway
        The gateway, which is told when the process is to end.
    app
        What answers requests, the gateway among it.
    """

    def __init__(self, gateway: Gateway, app: App) -> None:
        config: Any = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        super().__init__(config)
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run_on(self, sockets: list[socket.socket]) -> None:
        """Serve until a signal or `end`, on sockets from `listening`."""
        self._loop = asyncio.get_running_loop()
        await self.serve(sockets)

    def end(self) -> None:
        """End as at a signal; from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: drop pairs that are under way at once, and then let clients be served."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gateway.stop)
        super().handle_exit(sig, frame)

    def _end(self) -> None:
        self._gateway.stop()
        self.should_exit = True
