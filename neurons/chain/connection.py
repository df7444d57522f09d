"""One connection to a chain: the SDK's client, every wait bounded, every failure one of `errors`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, TypeVar

import bittensor as bt
from bittensor.settings import default_archive_endpoints, default_fallback_endpoints, resolve_endpoint

from neurons.chain import errors
from neurons.chain.local.substrate import LocalSubstrate
from neurons.chain.pacing import PUBLIC_REQUESTS_PER_SECOND, paced

T = TypeVar("T")

OLDEST_SPEC_VERSION: Final = 425
"""The first runtime whose epochs, weights and commits are as this package takes them."""
MORE_DETAIL: Final = "check the network's name, and that it can be reached from here"


_WAITING_IN_POOL: Final = ("priority is too low", "outdated", "stale", "already imported")
_FULL_UNTIL_NEXT_EPOCH: Final = "CommitQueueFull"
"""Under Null consensus: the SDK has no code for it."""
"""What nodes say of an extrinsic whose nonce another one has, that is in the pool or in a block."""


def substrate_for(network: str, *, timeout_seconds: float) -> bt.Substrate:
    """Return the way to `finney`, `test`, a `ws(s)://` endpoint, or a local subnet's `http(s)://` URL."""
    if network.startswith(("http://", "https://")):
        return LocalSubstrate(network, timeout_seconds=timeout_seconds)
    label, endpoint = resolve_endpoint(network)
    return bt.RpcSubstrate(
        endpoint,
        fallback_endpoints=[url for url in default_fallback_endpoints(label) if url != endpoint],
        archive_endpoints=default_archive_endpoints(label),
    )


class Chain:
    """What neurons ask the chain through. It connects when it is first asked, and anew after a failure.

    Safe to share between tasks of one event loop.
    """

    def __init__(
        self,
        network: str,
        *,
        timeout_seconds: float = 30.0,
        write_timeout_seconds: float = 120.0,
        retries: int = 2,
        requests_per_second: float | None = None,
        pause_seconds: float = 1.0,
        longest_pause_seconds: float = 15.0,
        open_substrate: Callable[[], bt.Substrate] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A question may take `timeout_seconds`, or `write_timeout_seconds` if it waits for a block to be final.

        One that got no answer is asked `retries` times more. No more than `requests_per_second` are sent; by default
        one to the public endpoints of `finney` and `test`, and any number to others.

        Between them are pauses that double from `pause_seconds`, or what the endpoint asks for, up to
        `longest_pause_seconds`; if it asks for more, `RateLimited` is raised at once.

        Raises:
            ValueError: there is no such network.
        """
        if not network.startswith(("http://", "https://")):
            resolve_endpoint(network)
        self.network = network
        self._timeout = timeout_seconds
        self._retries = retries
        if requests_per_second is None and network in {"finney", "test"}:
            requests_per_second = PUBLIC_REQUESTS_PER_SECOND
        self._requests_per_second = requests_per_second
        self._pause = pause_seconds
        self._longest_pause = longest_pause_seconds
        self._write_timeout = write_timeout_seconds
        self._open = open_substrate or (lambda: substrate_for(network, timeout_seconds=timeout_seconds))
        self._sleep = sleep
        self._clock = clock
        self._substrate: bt.Substrate | None = None
        self._client: bt.Client | None = None
        self._connecting = asyncio.Lock()

    @property
    def is_local(self) -> bool:
        """Whether this is a local subnet, where private addresses can be reached."""
        return self.network.startswith(("http://", "https://"))

    async def ask(self, question: Callable[[bt.Client], Awaitable[T]], *, writes: bool = False) -> T:
        """Ask; asked again when there was no answer, so a question that `writes` has to look first what is there.

        Raises:
            ChainError: any of `errors`.
        """
        patience = self._write_timeout if writes else self._timeout
        pause = self._pause
        for attempt in range(self._retries + 1):
            try:
                return await self.once(question, timeout_seconds=patience)
            except errors.Unreachable as error:
                wanted = error.retry_after if isinstance(error, errors.RateLimited) else None
                if attempt == self._retries or (wanted or 0.0) > self._longest_pause:
                    raise
                await self._sleep(min(max(pause, wanted or 0.0), self._longest_pause))
                pause *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def once(self, question: Callable[[bt.Client], Awaitable[T]], *, timeout_seconds: float | None = None) -> T:
        """Ask once, with another patience if need be.

        Raises:
            ChainError: any of `errors`.
        """
        patience = timeout_seconds or self._timeout
        client: bt.Client | None = None
        try:
            async with asyncio.timeout(patience):
                client = await self._connected()
                return await question(client)
        except Exception as error:
            told = self._told(error, patience)
            if told is None:
                raise
            if isinstance(told, errors.Unreachable):
                # One that failed to open is closed already, and one that was opened since stays open.
                if not isinstance(told, errors.InPool) and client is not None and client is self._client:
                    await self.close()
            elif client is not None and client is not self._client:
                # Another task closed the connection under this one. To the SDK that is a refusal as any other.
                told = errors.Unreachable(f"the connection to {self.network} was closed meanwhile ({told})")
            if told is error:
                raise
            raise told from error

    def _told(self, error: Exception, patience: float) -> errors.ChainError | None:
        """Return one of `errors` for what a question raised; None for what is none of the chain's."""
        told: errors.ChainError | None = None
        match error:
            case errors.ChainError():
                told = error
            case TimeoutError():
                told = errors.Unreachable(f"{self.network} didn't answer within {patience:g} seconds: {MORE_DETAIL}")
            case bt.RpcPolicyError():
                told = errors.RateLimited(
                    f"{self.network} refuses further requests for now: ask less often, or use another endpoint "
                    f"({error})",
                    retry_after=_seconds(error.retry_after),
                )
            case bt.RpcConnectionError() | bt.ConnectionNotReady() | OSError():
                told = errors.Unreachable(f"{self.network} can't be reached: {MORE_DETAIL} ({error})")
            case bt.ChainError():
                told = refusal(error)
            case bt.BittensorError():
                told = errors.Refused(f"this can't be asked of the chain: {error}")
            case KeyError() | TypeError() | ValueError() | AttributeError() | IndexError():
                # The SDK decodes by the runtime's own metadata; what it then can't find isn't there any more.
                told = errors.OtherRuntime(
                    f"{self.network} answers what this release can't read ({error!r}): its runtime has changed; update"
                )
        return told

    async def execute(
        self, client: bt.Client, intent: bt.Intent, keypair: bt.sp_core.Keypair, *, nonce: int
    ) -> bt.ExtrinsicResult:
        """Sign an intent under a nonce and wait until it is final; for use in a question that `writes`.

        With the nonce that the chain counted when the question looked, at most one of several tries can ever be
        included: nothing is done twice, whatever became of the answers. The SDK's own `execute` takes the next nonce.

        Raises:
            InPool: an extrinsic with this nonce is on its way, or is in a block by now.
            Unreachable: the connection broke; it may have arrived or not.
            bt.ChainError: the chain refuses it.
        """
        substrate = self._substrate
        if substrate is None or client is not self._client:
            raise bt.ConnectionNotReady("the connection was closed")
        plan = await client.plan(intent, keypair)
        try:
            result = await substrate.submit(plan.call, keypair, nonce=nonce)
        except bt.ChainError as error:
            if error.__cause__ is None:
                raise
            # So the SDK says that the connection broke under a signed extrinsic, which may have arrived or not.
            raise errors.Unreachable(
                f"{self.network} broke the connection while an extrinsic was sent ({error})"
            ) from error
        if not result.success and any(said in result.message.lower() for said in _WAITING_IN_POOL):
            raise errors.InPool(
                f"another extrinsic of {keypair.ss58_address} is on its way ({result.message}): look again"
            )
        result.raise_for_failure()
        return replace(result, data={**plan.extras, **result.data})

    async def _connected(self) -> bt.Client:
        async with self._connecting:
            if self._client is None:
                substrate = self._open()
                if self._requests_per_second is not None:
                    substrate = paced(
                        substrate, per_second=self._requests_per_second, clock=self._clock, sleep=self._sleep
                    )
                client = bt.Client("local" if self.is_local else self.network, substrate=substrate)
                try:
                    await client.connect()
                    await self._check_runtime(client)
                except BaseException:
                    await client.close()
                    raise
                self._client, self._substrate = client, substrate
            return self._client

    async def _check_runtime(self, client: bt.Client) -> None:
        version = await client.spec_version()
        if version < OLDEST_SPEC_VERSION:
            raise errors.OtherRuntime(
                f"{self.network} runs spec version {version}, and this release knows {OLDEST_SPEC_VERSION} and newer: "
                "choose another endpoint"
            )

    async def close(self) -> None:
        """Close the connection; the next question opens another."""
        client, self._client, self._substrate = self._client, None, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def refusal(error: bt.ChainError) -> errors.ChainError:
    """Return one of `errors` for what the SDK says the chain refused."""
    if error.code is bt.ErrorCode.NOT_REGISTERED:
        return errors.NotRegistered(f"{error.message} Register the hotkey, or use the one that is registered")
    too_early = error.code is bt.ErrorCode.RATE_LIMITED or error.name == _FULL_UNTIL_NEXT_EPOCH
    kind = errors.TooEarly if too_early else errors.Refused
    reason = f"{error.name}: {error.message}" if error.name else error.message
    return kind(f"the chain refuses it: {reason}", name=error.name)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return None if retry_after is None else float(retry_after)
    except ValueError:
        return None  # a date: the caller's own pause will do
