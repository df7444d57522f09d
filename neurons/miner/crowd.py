"""How many requests there may be at once, shared by the twins that are asked and by the clients who ask."""

from __future__ import annotations

from neurons.shares import Shares


class Crowd:
    """Requests of one kind. At the limit one still gets in that is below its share, as its twin's or as its client's.

    By twins alone, whoever floods one would keep all other clients from it; by clients alone, one whose patients ask
    for many twins would keep them from each other. Beyond the limit there is as much for either as `Shares` has.
    """

    def __init__(self, most: int) -> None:
        self._twins, self._clients = Shares(most), Shares(most)
        self._most = most

    @property
    def total(self) -> int:
        """How many there are."""
        return self._twins.total

    def admits(self, twin: str, client: str, *, twins: int) -> bool:
        """Tell whether one more may be here; `twins` is how many may be asked. Let only known ones be asked for."""
        # Of clients each has one place of its own, however many may come.
        return self._twins.admits(twin, of=twins) or self._clients.admits(client, of=max(1, self._most))

    def of_twin(self, twin: str) -> int:
        """Return how many of this twin there are."""
        return self._twins.running(twin)

    def begin(self, twin: str, client: str) -> None:
        """Count one."""
        self._twins.begin(twin)
        self._clients.begin(client)

    def end(self, twin: str, client: str) -> None:
        """Count it no longer."""
        self._twins.end(twin)
        self._clients.end(client)
