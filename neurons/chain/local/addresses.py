"""Accounts by their addresses: one of 32 bytes has one address here, so that nobody is two by writing it twice."""

from __future__ import annotations

import bittensor as bt


def checked(address: object) -> str:
    """Return an ss58 address as Bittensor writes it; raises ValueError for anything else, the message a sentence."""
    try:
        written = str(bt.sp_core.encode_ss58(bt.sp_core.decode_ss58(address)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(address)[:64]!r} is no ss58 address ({error}): copy it whole") from None
    if written != address:
        raise ValueError(f"{str(address)[:64]!r} is an address of another network; here it is written {written}")
    return written
