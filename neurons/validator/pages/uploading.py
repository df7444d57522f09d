"""A doctor's own conversations: freed of identifiers, shown to the doctor, and then put where the twin learns from."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from neurons.importers import SHAPES, Import, Refused, Shape, import_lines
from neurons.importers.documents import NotReadable, as_line, documents
from neurons.miner.errors import RequestError, bad_request, unavailable
from neurons.store import StoreError, join, open_store
from neurons.validator.pages.cleaning import Cleaned, cleaned, mark
from neurons.validator.pages.doctors import Doctors
from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.staff import own_twin
from neurons.validator.pages.visit import Visit

MAX_CHARACTERS: Final = 400_000
MOST_CONVERSATIONS: Final = 50
"""At a time: looking for identifiers takes up to 20 ms a message, and the doctor is to read all of it."""
MOST_TEXTS: Final = 2000
_SHAPES: Final = (Shape.OPENAI, Shape.SHAREGPT, Shape.ALPACA)
"""Pairs of answers are chosen on the pages themselves."""


@dataclass(frozen=True, slots=True)
class Message:
    """One text of a conversation."""

    role: str
    """`user`, `assistant`, `system`, or the field that it stands in."""
    cleaned: Cleaned


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation as it may be kept; or why it can't."""

    number: int
    fields: dict[str, Any]
    messages: tuple[Message, ...]
    refusal: str = ""

    @property
    def removed(self) -> int:
        """How many identifiers were removed."""
        return sum(each.cleaned.removed for each in self.messages)


class Uploading:
    """Answers a doctor who brings conversations."""

    def __init__(self, gateway: Gateway, *, doctors: Doctors, renderer: Renderer, store: str | None) -> None:
        """`store`: where fine-tunes read `<store>/<twin>/interactions`; None: nothing can be brought."""
        self._gateway, self._doctors, self._renderer, self._store = gateway, doctors, renderer, store

    async def show(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Show the form."""
        own_twin(visit, twin)
        return self._page(visit, twin)

    async def take(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Show what would be kept; and keep it once the doctor has seen that."""
        own_twin(visit, twin)
        if self._store is None:
            raise RequestError(404, "invalid_request_error", "no store is set up", code="no_store")
        said = visit.text("conversations", most=MAX_CHARACTERS)
        shape = visit.text("shape", most=16) or Shape.OPENAI.value
        if shape not in {each.value for each in _SHAPES}:
            raise bad_request("`shape` is none that is read", param="shape")
        try:
            found = await self._read(said, Shape(shape))
        except NotReadable as error:
            return self._page(visit, twin, said=said, shape=shape, problem=str(error), status=400)
        usable = [each for each in found if not each.refusal]
        agreed = visit.fields.get("consent") == "yes"
        if not usable or not agreed or visit.fields.get("seen") != mark(said):
            return self._page(visit, twin, said=said, shape=shape, found=found, agreed=agreed)
        await self._keep(twin, usable)
        return self._page(visit, twin, kept=len(usable))

    async def _read(self, said: str, shape: Shape) -> list[Conversation]:
        read: list[tuple[int, dict[str, Any], list[tuple[str, str]]]] = []
        refused: list[Conversation] = []
        for each in documents(io.BytesIO(said.encode("utf-8", "replace"))):
            if len(read) + len(refused) >= MOST_CONVERSATIONS:
                refused.append(Conversation(each.number, {}, (), f"more than {MOST_CONVERSATIONS} at a time"))
                break
            if each.flaw is not None or not isinstance(each.value, dict):
                refused.append(Conversation(each.number, {}, (), each.flaw or "no object {…}"))
                continue
            try:
                fields = SHAPES[shape](each.value)
            except Refused as refusal:
                refused.append(Conversation(each.number, {}, (), str(refusal)))
                continue
            texts = [(str(message["role"]), str(message["content"])) for message in fields.get("messages", ())]
            if isinstance(fields.get("correction"), str):
                texts.append(("correction", fields["correction"]))
            read.append((each.number, fields, texts))
        everything = [text for _, _, texts in read for _, text in texts]
        if len(everything) > MOST_TEXTS:
            raise bad_request(f"there are more than {MOST_TEXTS} messages: bring fewer at a time")
        clean = iter(await cleaned(self._gateway.scrub, everything))
        made = []
        for number, fields, texts in read:
            messages = tuple(Message(role, next(clean)) for role, _ in texts)
            made.append(_checked(Conversation(number, _replaced(fields, messages), messages)))
        return sorted([*made, *refused], key=lambda each: each.number)

    async def _keep(self, twin: str, usable: list[Conversation]) -> None:
        target = io.BytesIO()
        for _ in import_lines(_file(usable), target, shape=Shape.OPENAI, consent=True, told=Import()):
            raise bad_request("a conversation that could be kept before can't be now: look at the preview again")
        data = target.getvalue()
        name = f"doctor-{hashlib.sha256(data).hexdigest()[:32]}.jsonl"  # brought twice, it lies there once
        try:
            await open_store(join(self._store or "", twin, "interactions"), create=True).put(name, data)
        except StoreError:
            raise unavailable("the store can't be written to now: try again", retry_after=30, code="no_store") from None

    def _page(self, visit: Visit, twin: str, *, status: int = 200, **more: Any) -> web.Response:
        given = {
            "said": "", "shape": Shape.OPENAI.value, "found": None, "agreed": False, "problem": "", "kept": None,
            **more,
        }  # fmt: skip
        return self._renderer.page(
            "upload.html", visit, status=status, twin=twin, called=self._doctors.called(twin), most=MAX_CHARACTERS,
            at_once=MOST_CONVERSATIONS, mark=mark,
            shapes=[each.value for each in _SHAPES], ready=self._store is not None and self._gateway.scrub is not None,
            **given,
        )  # fmt: skip


def _replaced(fields: dict[str, Any], messages: tuple[Message, ...]) -> dict[str, Any]:
    """Return the fields with the texts as they may be kept; nothing else of the doctor's file is taken over."""
    turns = len(fields.get("messages", ()))
    kept: dict[str, Any] = {
        "messages": [{"role": each.role, "content": each.cleaned.text} for each in messages[:turns]],
        **{each.role: each.cleaned.text for each in messages[turns:]},
    }
    # A line that says itself that nobody agreed stays refused, whatever the doctor ticks.
    return kept | {name: fields[name] for name in ("rating", "consent") if name in fields}


def _checked(conversation: Conversation) -> Conversation:
    """Say what the trainer would refuse, consent aside, which is asked of the doctor for all."""
    target = io.BytesIO()
    for refusal in import_lines(_file([conversation]), target, shape=Shape.OPENAI, consent=True, told=Import()):
        return Conversation(conversation.number, conversation.fields, conversation.messages, refusal.why)
    return conversation


def _file(conversations: list[Conversation]) -> io.BytesIO:
    return io.BytesIO(b"\n".join(as_line(each.fields).rstrip(b"\n") for each in conversations))
