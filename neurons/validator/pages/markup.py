"""A miner's words made into HTML that can do no harm: a little Markdown, no links, no images, no markup of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

MAX_MARKDOWN: Final = 12_000
"""Characters: an answer of two thousand tokens has some 8,000."""
MAX_SOURCES: Final = 10
_SCROLLED: Final = {"div": {"class": {"scroll"}, "tabindex": {"0"}}}
"""Around a table, which may be wider than a telephone; a tabindex lets the keyboard scroll it."""
MAX_ADDRESS: Final = 500
_TAGS: Final = frozenset(
    {
        "p", "br", "strong", "em", "ul", "ol", "li", "code", "pre", "blockquote", "hr",
        "div", "table", "thead", "tbody", "tr", "th", "td",
    }
)  # fmt: skip
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"'`(){}\[\]\\|^]+")


def _shown(markdown: MarkdownIt, what: str, *, opened: str, closed: str) -> MarkdownIt:
    """Show each `what` between two texts."""
    markdown.add_render_rule(f"{what}_open", lambda *_: opened)
    markdown.add_render_rule(f"{what}_close", lambda *_: closed)
    return markdown


def _headings(markdown: MarkdownIt) -> MarkdownIt:
    """Show headings as bold paragraphs: an answer must not break the order of the page's own headings."""
    return _shown(markdown, "heading", opened="<p><strong>", closed="</strong></p>\n")


def _tables(markdown: MarkdownIt) -> MarkdownIt:
    """Put each table into a box in which it can be scrolled."""
    return _shown(markdown, "table", opened='<div class="scroll" tabindex="0"><table>\n', closed="</table></div>\n")


_MARKDOWN: Final = _tables(_headings(MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")))


def shown(text: str) -> tuple[Markup, tuple[str, ...]]:
    """Return the HTML of an answer and the web addresses that it names, each once, in order.

    Links become their words: addresses are shown whole, and were checked by nobody. A text too long to be a twin's
    Markdown stays as it is: a miner's could keep this process from everybody else for a minute.
    """
    if len(text) > MAX_MARKDOWN:
        return _plain(text), _sources(text, ())
    environment: dict[str, Any] = {}
    tokens = _MARKDOWN.parse(text, environment)
    # The sanitiser decides alone what is left, whatever the renderer lets through.
    html = nh3.clean(
        _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, environment), tags=set(_TAGS), attributes={},
        tag_attribute_values=_SCROLLED, link_rel=None,
    )  # fmt: skip
    return Markup(html), _sources(text, _links(tokens))  # noqa: S704


def _plain(text: str) -> Markup:
    return Markup("<p>{}</p>").format(Markup("<br>\n").join(text.split("\n")))


def _sources(text: str, links: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for address in (*links, *_ADDRESS.findall(text)):
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
