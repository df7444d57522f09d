"""Where a fine-tune task's things are at a gateway: paths and URLs, for those too that hold no key to sign with."""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

PATH: Final = "/v1/tasks"
MAX_URL: Final = 1024
TASK_ID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
DATASET: Final = "dataset"
EXAMINATION: Final = "examination"
ADAPTER: Final = "adapter"
_PLACE: Final = re.compile(f"{PATH}/(?P<task>{TASK_ID})/(?P<what>dataset|reports|examination|adapter)")


class TaskError(ValueError):
    """A document is none, or not of whom it should be; the message is a sentence."""


def path_of(task: str, what: str = DATASET) -> str:
    """Return the path of something of a task at the gateway."""
    return f"{PATH}/{task}/{what}"


def adapter_url(dataset: str) -> URL:
    """Return where the version goes that was made of the dataset at this URL; what opens the one opens the other.

    Raises TaskError.
    """
    return reports_url(dataset).with_path(path_of(_place(dataset), ADAPTER)).with_query(URL(dataset).query)


def reports_url(dataset: str) -> URL:
    """Return where reports of a task go whose dataset is at this URL. Raises TaskError."""
    return _web_address(dataset).with_path(path_of(_place(dataset), "reports"))


def _place(dataset: str) -> str:
    """Return the task whose dataset is at this URL. Raises TaskError."""
    found = _PLACE.fullmatch(_web_address(dataset).path)
    if found is None or found["what"] != DATASET:
        raise TaskError("The dataset is at no task's address.")
    return found["task"]


def place_of(path: str) -> tuple[str, str] | None:
    """Return task and what of it (`dataset`, `reports`, …) a path names; None for another path."""
    found = _PLACE.fullmatch(path)
    return (found["task"], found["what"]) if found is not None else None


def _web_address(text: str) -> URL:
    try:
        url = URL(text)
        good = url.scheme in ("http", "https") and url.host and url.user is None and not url.fragment
    except ValueError:
        good = False
    if not good or len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise TaskError("The dataset is at no http:// or https:// address without a user.")
    return url
