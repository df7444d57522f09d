"""What miners announce: each asked for its signed announcement, as a validator asks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from bettertherapy_api.faults import printable
from neurons.chain.errors import ColdkeyError, WalletError
from neurons.chain.wallet import load_hotkey
from neurons.receipts import NeuronEntry
from neurons.subnet.errors import SubnetError
from neurons.wire.announcement import MAX_BYTES, PATH, Announcement, AnnouncementError, read_announcement
from neurons.wire.signer import RequestSigner, signed_request

AT_ONCE: Final = 16
SECONDS: Final = 10.0
_SHOWN: Final = 300


def signer_from(wallet: Path) -> RequestSigner:
    """Return what signs with the wallet's hotkey; raises SubnetError."""
    if wallet.is_file():
        raise SubnetError(f"--wallet {wallet} is a file: give the folder that it is in, with no coldkey in it.")
    if not wallet.is_dir():
        raise SubnetError(f"--wallet {wallet}: there is no such folder.")
    try:
        return RequestSigner(load_hotkey(wallet).keypair)
    except ColdkeyError:
        raise SubnetError(
            f"--wallet {wallet} holds a coldkey, which nothing that asks a network may read: give a folder with a copy "
            "of the hotkey's file alone."
        ) from None
    except WalletError as error:
        # It speaks of the Secret that a pod has, and how to make one; here there is a folder.
        said, _, _ = str(error).partition(": create it from")
        said = said.replace("the wallet's Secret", f"--wallet {wallet}")
        raise SubnetError(f"{said}.") from None


async def announcements(
    neurons: Sequence[NeuronEntry], signer: RequestSigner, *, netuid: int, seconds: float = SECONDS
) -> dict[str, Announcement | str]:
    """Return, by hotkey, what each neuron with an axon announces, or why that isn't known.

    What comes from a miner is bounded, must be signed by the hotkey that the metagraph names, and no redirect is
    followed.
    """
    places = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session:

        async def one(neuron: NeuronEntry) -> tuple[str, Announcement | str]:
            async with places:
                return neuron.hotkey, await _ask(session, signer, neuron, netuid=netuid)

        return dict(await asyncio.gather(*(one(neuron) for neuron in neurons if neuron.axon)))


async def _ask(
    session: aiohttp.ClientSession, signer: RequestSigner, neuron: NeuronEntry, *, netuid: int
) -> Announcement | str:
    try:
        url = URL(f"http://{neuron.axon}{PATH}")
        async with signed_request(session, signer, method="GET", url=url, receiver=neuron.hotkey, tries=1) as response:
            data = await response.content.read(MAX_BYTES + 1)
            while len(data) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES + 1)):
                data += more
            if response.status != 200:
                return f"it answered {response.status}: {refusal_text(data)}"
        return read_announcement(data, hotkey=neuron.hotkey, now_ms=time.time_ns() // 1_000_000, netuid=netuid)
    except AnnouncementError as error:
        return str(error)
    except TimeoutError:
        return "it did not answer in time"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"it can't be reached: {type(error).__name__}"


def refusal_text(data: bytes) -> str:
    """Return the start of a refusal's message, without what could move a terminal's cursor."""
    text = data[: 4 * _SHOWN].decode(errors="replace")
    try:
        message = json.loads(data)["error"]["message"]
    except (RecursionError, ValueError, LookupError, TypeError):
        message = None
    if isinstance(message, str):
        text = message
    return printable(text)[:_SHOWN]
