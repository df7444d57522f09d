"""What was asked for, and what every step on the cluster needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demo.files import Volume
from demo.images import Images
from demo.installation import NAMESPACE
from demo.kube import Kube
from demo.targets import Target
from demo.timeline import Timeline


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    target: Target
    work: Path
    """Folder for logs and other leftovers of the demo."""
    cache: Path
    """Folder for what is kept between runs: trained adapters, the base model."""
    registry: str
    tag: str
    until: str = "end"
    """`answers`: stop after the first answers; `scaling`: after a second engine came and went, which `end` leaves out;
    `receipt`: after an answer on the local subnet; `gateway`: after one of three
    miners that a gateway asks; `round`: after these were examined, which `end` leaves out."""


@dataclass(frozen=True)
class Stage:
    """The cluster as it is once the images are in it."""

    kube: Kube
    images: Images
    options: Options
    timeline: Timeline
    prometheus: str | None
    """Where the operator reads how a new version does; None: nowhere."""

    def volume(self, claim: str) -> Volume:
        """Return a claim's files, to be entered."""
        return Volume(self.kube, namespace=NAMESPACE, image=self.images["neuron"].reference, claim=claim)
