"""Bearer tokens from a mounted Secret: one file per client, its name the client's, its content the token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from neurons.miner.errors import RequestError
from neurons.miner.metrics import Metrics

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
MAX_TOKEN_BYTES: Final = 4096
SHORT_TOKEN: Final = 16


@dataclass(frozen=True, slots=True)
class _Client:
    name: str
    token_hash: bytes


class AccessList:
    """The tokens accepted now. The folder is read again when it changes; kubelet swaps it as a whole."""

    def __init__(self, directory: Path, *, secret: str, namespace: str, metrics: Metrics) -> None:
        self._directory, self._secret, self._namespace, self._metrics = directory, secret, namespace, metrics
        self._key = secrets.token_bytes(32)
        self._seen: object = None
        self._clients: tuple[_Client, ...] = ()
        self.refresh()

    def client(self, authorization: str | None) -> str:
        """Return the name of the client with this Authorization header; raises RequestError (401).

        Hashed first, so that all comparisons are of one length; compared with every token, so that the time tells
        neither which client it was nor how much of a token was right.
        """
        if not self._clients:
            raise RequestError(
                401,
                "authentication_error",
                f"this pool accepts no client yet: its access Secret {self._secret!r} is missing or empty. Create it: "
                f"kubectl --namespace {self._namespace} create secret generic {self._secret} "
                "--from-literal=CLIENT=TOKEN",
                code="no_access_tokens",
            )
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RequestError(
                401,
                "authentication_error",
                "send the header `Authorization: Bearer TOKEN`",
                code="missing_api_key",
            )
        given = self._hash(token.strip().encode("utf-8", "surrogateescape"))
        found: str | None = None
        for client in self._clients:
            if hmac.compare_digest(client.token_hash, given):
                found = client.name
        if found is None:
            raise RequestError(
                401,
                "authentication_error",
                f"this token is not in the pool's access Secret {self._secret!r}",
                code="invalid_api_key",
            )
        return found

    async def follow(self) -> None:
        """Poll the folder for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read the folder if it changed; an unreadable file keeps nobody else out."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        clients = []
        for path in self._files():
            try:
                token = path.read_bytes()[:MAX_TOKEN_BYTES].strip()
            except OSError as error:
                log.warning("access token file %s can't be read: %s", path.name, error.strerror)
                continue
            if not token:
                log.warning("access token of client %s is empty: it is not accepted", path.name)
                continue
            if len(token) < SHORT_TOKEN:
                log.warning("access token of client %s has under %d characters", path.name, SHORT_TOKEN)
            clients.append(_Client(path.name, self._hash(token)))
        self._clients = tuple(clients)
        self._metrics.clients.set(len(clients))
        log.info("access list", extra={"clients": len(clients)})

    def _hash(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, key=self._key, digest_size=32).digest()

    def _files(self) -> list[Path]:
        try:
            # Names with a dot in front are kubelet's own: ..data and the folder it points to.
            return sorted(path for path in self._directory.iterdir() if path.name[0] != "." and path.is_file())
        except OSError:
            return []

    def _signature(self) -> object:
        try:
            swapped = str((self._directory / "..data").readlink())
        except OSError:
            swapped = ""
        files = []
        for path in self._files():
            try:
                stat = os.stat(path)
            except OSError:
                continue
            files.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return swapped, tuple(files)
