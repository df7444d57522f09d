"""The documentation as a site: `make docs`. Its source is the repository itself, so links are the same there and here.

A page's menu is made from the links that it lists (`menus`): what a reader sees on the page is what the menu has.
Nothing is loaded from elsewhere when the site is read.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

from sphinx.application import Sphinx

project = "BetterTherapy"
html_title = "BetterTherapy"
author = "BetterTherapy"
root_doc = "docs/README"
include_patterns = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "charts/*/README.md", "cli/README.md",
    "examples/README.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "dist", "images", "tests"]
"""Folders that are large, or not this checkout's own: they are not even walked through."""
extensions = ["myst_parser"]
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
"""As GitHub names them."""
smartquotes = False
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]
"""PromQL's highlighter knows no `:` in a name; links and headings are what must be right."""

html_theme = "furo"
html_additional_pages = {"index": "index.html"}
templates_path = ["site"]
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False

INDEXES: Final = ("docs/README", "docs/decisions/README", "docs/runbooks/README")
"""Pages whose chapters of links are the menu."""
_CHAPTER: Final = re.compile(r"^## (.+)$", re.MULTILINE)
_LISTED: Final = re.compile(r"^- \[(.+)\]\(([^)#:]+)\.md\)", re.MULTILINE)


def menus(app: Sphinx, name: str, source: list[str]) -> None:
    """Put behind each chapter's list of pages the same as a menu, which the page itself doesn't show."""
    if name not in INDEXES:
        return
    del app
    first, *chapters = _CHAPTER.split(source[0])
    pairs = [("", first), *zip(chapters[::2], chapters[1::2], strict=True)]
    source[0] = "".join(
        (f"## {title}" if title else "") + text + _menu(title, text, posixpath.dirname(name)) for title, text in pairs
    )


def _menu(title: str, text: str, folder: str) -> str:
    pages = [(label, posixpath.normpath(posixpath.join(folder, target))) for label, target in _LISTED.findall(text)]
    if not pages:
        return ""
    lines = [f"{label.replace('`', '')} </{page}>" for label, page in pages]
    caption = [f":caption: {title}"] if title else []
    return "\n".join(["\n\n```{toctree}", ":hidden:", *caption, "", *lines, "```", "\n"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", menus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
