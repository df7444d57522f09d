"""`python -m neurons.validator.round_creation`: make the ValidatorRound that is due, once, and nothing else.

The CronJob V-rounds runs it. ROUND holds the object but for its name, which follows from that of the CronJob's Job
(JOB_NAME): a pod that is tried again after its first attempt was lost finds the round there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import orjson

from bettertherapy_api import validator_round
from bettertherapy_api.names import API_VERSION
from neurons.cluster import ClusterAccessError, ClusterClient, ClusterError

TRY_AGAIN: Final = 75
_SCHEDULED: Final = re.compile(r"-([0-9]{7,12})$")
"""A CronJob ends its Jobs' names with the minutes since 1970 for which they were made."""


class CreationError(Exception):
    """The round can't be made; the message says why."""


def round_name(validator: str, job: str) -> str:
    """Return the round's name: the same for each attempt of a Job, another for each Job."""
    found = _SCHEDULED.search(job)
    return f"{validator}-{found[1] if found else hashlib.sha256(job.encode()).hexdigest()[:10]}"


def named(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the round to make.

    Raises:
        CreationError: a variable is missing, or ROUND is no ValidatorRound.
    """
    missing = [name for name in ("ROUND", "VALIDATOR", "JOB_NAME") if not environ.get(name)]
    if missing:
        raise CreationError(f"{', '.join(missing)} must be set: this is run by the CronJob that the operator makes")
    try:
        made = orjson.loads(environ["ROUND"])
    except orjson.JSONDecodeError as error:
        raise CreationError(f"ROUND is no JSON: {error}") from error
    if not isinstance(made, dict) or (made.get("apiVersion"), made.get("kind")) != (API_VERSION, validator_round.KIND):
        raise CreationError(f"ROUND is no {validator_round.KIND} of {API_VERSION}")
    metadata = {**(made.get("metadata") or {}), "name": round_name(environ["VALIDATOR"], environ["JOB_NAME"])}
    if not metadata.get("namespace"):
        raise CreationError("ROUND names no namespace")
    return {**made, "metadata": metadata}


async def create(client: ClusterClient, made: Mapping[str, Any]) -> str:
    """Make the round; returns what became of it, as a sentence. Raises ClusterError, ClientError or TimeoutError."""
    metadata = made["metadata"]
    path = f"/apis/{API_VERSION}/namespaces/{metadata['namespace']}/{validator_round.PLURAL}"
    try:
        await client.create(path, made)
    except ClusterError as error:
        if error.status == 409 and error.reason == "AlreadyExists":
            return f"round {metadata['name']} is there already"
        raise
    return f"made round {metadata['name']}"


async def _run(environ: Mapping[str, str]) -> str:
    made = named(environ)
    async with ClusterClient() as client:
        return await create(client, made)


def main() -> int:
    """Make the round; the exit status is 75 for what may pass, 1 for what won't."""
    try:
        said = asyncio.run(_run(os.environ))
    except (CreationError, ClusterAccessError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
        sys.stderr.write(f"error: the round could not be made: {error or type(error).__name__}\n")
        return TRY_AGAIN
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
