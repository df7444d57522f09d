"""Which release this plugin is of."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version as of


def version() -> str:
    """Return the version of the distribution that brought the plugin: its own, or the whole project's."""
    for name in ("kubectl-twin", "bettertherapy-twin-operator"):
        try:
            return of(name)
        except PackageNotFoundError:
            continue
    return "of unknown release: it runs from a folder of sources"
