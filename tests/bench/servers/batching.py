"""A stand-in engine that batches as vLLM does: steps, places, prompts read in parts, first come first served.

`python -m tests.bench.servers.batching PORT`. Each step takes STEP_SECONDS, SEQUENCE_SECONDS for each answer in it and
PROMPT_SECONDS for each prompt that it reads, and gives a token to each answer. PLACES answers are in work at most, and
what is more waits in the order in which it came. Every answer is a stream of events, one a token, TOKENS on average.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections import deque
from typing import Final

import uvloop

from tests.bench.servers.instant import ANSWER, EVENT, STREAM_HEAD

PLACES: Final = 64
TOKENS: Final = 16
"""From half of it to one and a half times, by chance: answers that began together don't end together."""
STEP_SECONDS: Final = 0.25
"""Slow, so that what the miner and the clients need of a machine's processors tells little."""
SEQUENCE_SECONDS: Final = 0.001
PROMPT_SECONDS: Final = 0.01
PROMPTS_A_STEP: Final = 8
"""So many are read in one step at most: vLLM reads 8,192 tokens."""
_LENGTH: Final = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_PART: Final = f"{len(EVENT):x}\r\n".encode() + EVENT + b"\r\n"
_DONE: Final = b"data: [DONE]\n\n"
_END: Final = f"{len(_DONE):x}\r\n".encode() + _DONE + b"\r\n0\r\n\r\n"


class _Engine:
    def __init__(self) -> None:
        self._waiting: deque[asyncio.Queue[bool]] = deque()
        self._running: dict[asyncio.Queue[bool], int] = {}
        self._asked = asyncio.Event()

    def ask(self) -> asyncio.Queue[bool]:
        """Return where the tokens of one answer come."""
        tokens: asyncio.Queue[bool] = asyncio.Queue()
        self._waiting.append(tokens)
        self._asked.set()
        return tokens

    def abort(self, tokens: asyncio.Queue[bool]) -> None:
        """Work on it no longer."""
        self._running.pop(tokens, None)
        if tokens in self._waiting:
            self._waiting.remove(tokens)

    async def run(self) -> None:
        """Step for as long as there is something to do."""
        while True:
            if not self._waiting and not self._running:
                self._asked.clear()
                await self._asked.wait()
            read = 0
            while self._waiting and len(self._running) < PLACES and read < PROMPTS_A_STEP:
                self._running[self._waiting.popleft()] = random.randint(TOKENS // 2, TOKENS * 3 // 2)
                read += 1
            batch = list(self._running)
            await asyncio.sleep(STEP_SECONDS + SEQUENCE_SECONDS * len(batch) + PROMPT_SECONDS * read)
            for tokens in batch:
                if tokens in self._running:
                    self._running[tokens] -= 1
                    last = self._running[tokens] == 0
                    if last:
                        del self._running[tokens]
                    tokens.put_nowait(last)


async def _answer(engine: _Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            body = await reader.readexactly(length)
            if b'"stream":true' not in body:
                writer.write(ANSWER % length)  # whether its chat template reads what it is told
                continue
            tokens = engine.ask()
            try:
                last = await tokens.get()
                writer.write(STREAM_HEAD + _PART)
                while not last:
                    last = await tokens.get()
                    writer.write(_PART)
                writer.write(_END)
            finally:
                engine.abort(tokens)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _serve(port: int) -> None:
    engine = _Engine()
    server = await asyncio.start_server(
        lambda reader, writer: _answer(engine, reader, writer), "127.0.0.1", port, backlog=1024
    )
    async with server, asyncio.TaskGroup() as group:
        group.create_task(engine.run())


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
