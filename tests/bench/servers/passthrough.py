"""The least that an aiohttp proxy can do: `python -m tests.bench.servers.passthrough PORT UPSTREAM_URL`.

It copies method, path, content type and body, and streams the answer back; no policy, no metrics, no retries.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web


async def _serve(port: int, upstream: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as client:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
            async with client.request(request.method, upstream + request.path, data=body, headers=headers) as answer:
                headers = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
                if answer.content_length is not None:
                    return web.Response(status=answer.status, body=await answer.read(), headers=headers)
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
