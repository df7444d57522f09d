"""Sources that others bring: packages with an entry point in the group `bettertherapy.sources`.

An entry point names a callable that takes what its configuration says (`Mapping[str, str]`, a licence key among it)
and returns a Source. WebMD, UpToDate and Mayo Clinic
are licensed: none of their texts or clients is here, and their plug-ins are off until they are named in the
configuration together with a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from neurons.sources.errors import NotConfigured
from neurons.sources.passage import Source

GROUP: Final = "bettertherapy.sources"


def plugin_names() -> tuple[str, ...]:
    """Return the names of the plug-ins that are installed, sorted. None of them is imported."""
    return tuple(sorted({each.name for each in entry_points(group=GROUP)}))


def open_plugin(name: str, settings: Mapping[str, str]) -> Source:
    """Make a plug-in's source. Raises NotConfigured, without a word of the settings: a key may be among them."""
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise NotConfigured(f"no source `{name}` is installed; installed are: {', '.join(plugin_names()) or 'none'}")
    if len({each.value for each in found}) > 1:
        raise NotConfigured(f"two packages bring a source `{name}`; uninstall one of them")
    source = _made(found[0], settings)
    if not isinstance(source, Source):
        raise NotConfigured(f"what the plug-in `{name}` makes is no Source: it lacks name, search, fetch or close")
    return source


def _made(entry: EntryPoint, settings: Mapping[str, str]) -> object:
    try:
        return entry.load()(settings)
    except NotConfigured:
        raise
    except Exception as error:  # noqa: BLE001 - another's code, which may raise anything
        raise NotConfigured(f"the plug-in `{entry.name}` can't be made: {type(error).__name__}") from None
