"""What the pages say, in each language: all of it stands in texts.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

import yaml
from pydantic import Field, TypeAdapter

COOKIE: Final = "lang"


class Language(StrEnum):
    """A language of the pages."""

    ENGLISH = "en"
    NEPALI = "ne"


NAMES: Final[Mapping[Language, str]] = {Language.ENGLISH: "English", Language.NEPALI: "नेपाली"}
"""Each in its own words."""
_Both = Annotated[Mapping[Language, Annotated[str, Field(min_length=1)]], Field(min_length=2, max_length=2)]
_SHAPE: Final[TypeAdapter[dict[str, _Both]]] = TypeAdapter(dict[str, _Both])


@cache
def texts() -> Mapping[str, Mapping[Language, str]]:
    """Return all texts by key and language; raises ValidationError where one lacks a language."""
    raw = resources.files("neurons.validator.pages").joinpath("texts.yaml").read_bytes()
    return _SHAPE.validate_python(yaml.safe_load(raw))


class Texts:
    """The texts of one language: `t("ask")`, `t("twinOf", doctor=name)`."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, key: str, /, **values: Any) -> str:
        """Return a text; raises KeyError for one that doesn't exist."""
        text = texts()[key][self.language]
        return text.format(**values) if values else text


def language_of(cookie: str | None, accepted: str | None) -> Language:
    """Return the language that was chosen, or else the first of ours that the browser asks for."""
    if cookie in set(Language):
        return Language(cookie)
    for part in (accepted or "")[:200].split(","):
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in set(Language):
            return Language(code)
    return Language.ENGLISH
