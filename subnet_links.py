"""SUBNET_LINKS, as the Bittensor subnet template has it: where to read and run what, for who comes from there."""

from __future__ import annotations

from typing import Final

SUBNET_LINKS: Final[list[dict[str, str]]] = [
    {"name": "what it is", "url": "README.md"},
    {"name": "a subnet of your own", "url": "docs/running_on_staging.md"},
    {"name": "testnet", "url": "docs/running_on_testnet.md"},
    {"name": "mainnet", "url": "docs/running_on_mainnet.md"},
    {"name": "miner", "url": "charts/twin-miner/README.md"},
    {"name": "validator", "url": "charts/twin-validator/README.md"},
    {"name": "rounds", "url": "docs/rounds.md"},
    {"name": "chain", "url": "docs/subnet.md"},
    {"name": "hardware", "url": "min_compute.yml"},
]
"""By name; paths are relative to the repository."""
