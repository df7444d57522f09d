"""Who is on a subnet: the one description of a metagraph's rows, which whatever reads a chain or a file fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Neuron(Protocol):
    """One row; stake in the subnet's alpha."""

    @property
    def uid(self) -> int:
        """Its place."""

    @property
    def hotkey(self) -> str:
        """ss58 address of the key that signs for it."""

    @property
    def coldkey(self) -> str:
        """ss58 address of its owner's key."""

    @property
    def axon(self) -> str | None:
        """Where it serves, as `ip:port`; None while it serves nowhere."""

    @property
    def block_at_registration(self) -> int:
        """Block of its registration."""

    @property
    def validator_permit(self) -> bool:
        """Whether it may validate."""

    @property
    def stake(self) -> float:
        """What stands behind it."""


class Metagraph(Protocol):
    """All rows as of one block."""

    @property
    def netuid(self) -> int:
        """The subnet."""

    @property
    def block(self) -> int:
        """The block."""

    @property
    def neurons(self) -> Sequence[Neuron]:
        """The rows."""


N = TypeVar("N", bound=Neuron)


def neuron_of(neurons: Iterable[N], hotkey: str) -> N | None:
    """Return the row of a hotkey; None where it isn't registered."""
    return next((each for each in neurons if each.hotkey == hotkey), None)
