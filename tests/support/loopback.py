"""HTTP servers of tests, on loopback at a port that the system gives, stopped when their block ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE_S = 30.0
"""No machine is so busy that a thread takes longer to begin or to end."""


@asynccontextmanager
async def answering(handler, *, port=0):
    """Serve with an aiohttp handler, for every method and path; yield the URL, without a slash at its end.

    A handler is cancelled when its client goes away, and at the end of the block.
    """
    from aiohttp import web

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextmanager
def in_thread(opened):
    """Keep the async context that ``opened()`` returns open, on an event loop in another thread; yield what it does."""
    ready, given = threading.Event(), {}

    def work():
        async def main():
            given["stop"], given["loop"] = asyncio.Event(), asyncio.get_running_loop()
            try:
                async with opened() as what:
                    given["what"] = what
                    ready.set()
                    await given["stop"].wait()
            finally:
                ready.set()

        asyncio.run(main())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield given["what"]
    finally:
        given["loop"].call_soon_threadsafe(given["stop"].set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@contextmanager
def threaded(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with a handler of the standard library, a thread for each request; yield the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(PATIENCE_S)
