"""A miner's words made into HTML that can do no harm: a little Markdown, no links, no images, no markup of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

MAX_SOURCES: Final = 10
MAX_ADDRESS: Final = 500
_TAGS: Final = frozenset(
    {
        "p", "br", "strong", "em", "ul", "ol", "li", "code", "pre", "blockquote", "hr",
        "table", "thead", "tbody", "tr", "th", "td",
    }
)  # fmt: skip
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"'`(){}\[\]\\|^]+")


def _headings(markdown: MarkdownIt) -> MarkdownIt:
    """Show headings as bold paragraphs: an answer must not break the order of the page's own headings."""

    def opened(*_: Any) -> str:
        return "<p><strong>"

    def closed(*_: Any) -> str:
        return "</strong></p>\n"

    markdown.add_render_rule("heading_open", opened)
    markdown.add_render_rule("heading_close", closed)
    return markdown


_MARKDOWN: Final = _headings(MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table"))


def to_html(text: str) -> Markup:
    """Return the HTML of an answer. Links become their words: where they lead stands under `sources`."""
    # The sanitiser decides alone what is left, whatever the renderer lets through.
    return Markup(nh3.clean(_MARKDOWN.render(text), tags=set(_TAGS), attributes={}, link_rel=None))  # noqa: S704


def sources(text: str) -> tuple[str, ...]:
    """Return the web addresses that an answer names, each once, in order: shown whole, and checked by nobody."""
    found: dict[str, None] = {}
    for address in (*_links(_MARKDOWN.parse(text)), *_ADDRESS.findall(text)):
        bare = address.rstrip(".,;:!?*_~")
        if _ADDRESS.fullmatch(bare) and len(bare) <= MAX_ADDRESS:
            found.setdefault(bare)
    return tuple(found)[:MAX_SOURCES]


def _links(tokens: Sequence[Token]) -> list[str]:
    found: list[str] = []
    for token in tokens:
        if token.type == "link_open" and isinstance(href := token.attrGet("href"), str):
            found.append(href)
        found += _links(token.children or ())
    return found
