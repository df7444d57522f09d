"""The least that an aiohttp fan-out can do: `python -m tests.bench.servers.fanout PORT URL [URL …]`.

Each question goes to all of them side by side; when all have answered, the first one's answer is returned as it is. No
keys, signatures, receipts, comparison, records.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web


async def _serve(port: int, upstreams: list[str]) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as client:

        async def one(upstream: str, path: str, body: bytes) -> tuple[int, bytes]:
            headers = {"Content-Type": "application/json"}
            async with client.post(upstream + path, data=body, headers=headers) as answer:
                return answer.status, await answer.read()

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            answers = await asyncio.gather(*(one(upstream, request.path, body) for upstream in upstreams))
            status, first = answers[0]
            return web.Response(status=status, body=first, headers={"Content-Type": "application/json"})

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2:]))
