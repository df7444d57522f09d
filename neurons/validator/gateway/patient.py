"""`python -m neurons.validator.gateway.patient CLIENT USER`: under which id the ledger has whom a client calls so.

What was asked and answered is kept under pseudonyms, so that nobody can look a person up who doesn't have the secret
they are made with. Who erases a patient (`python -m neurons.ledger erase`) has it, and begins here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from neurons.miner.asked import IDENTITY_FIELDS, identity_of
from neurons.validator.gateway.sessions import Ids, kept_secret, named_secret

SECRET: Final = Path(names.SESSIONS_DIR, names.SESSIONS_FILE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the id; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m neurons.validator.gateway.patient", allow_abbrev=False,
        description="Print the id under which the ledger has a patient.",
    )  # fmt: skip
    parser.add_argument("client", help="the name of the key by which it was asked, its `id` in the keys' file")
    parser.add_argument("user", help="the patient, as that client named it")
    parser.add_argument(
        "--field", choices=IDENTITY_FIELDS, default="user", help="in which field of its questions (%(default)s)"
    )
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file", type=Path, default=SECRET, help="that of the gateway, as on Kubernetes (%(default)s)"
    )
    secret.add_argument("--state-dir", type=Path, help="that of a gateway that was given no --secret-file")
    given = parser.parse_args(arguments)
    try:
        ids = Ids(kept_secret(given.state_dir) if given.state_dir is not None else named_secret(given.secret_file))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: the secret of pseudonyms can't be read: {error}\n")
        return 1
    sys.stdout.write(ids.patient(given.client, identity_of(given.field, given.user)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
