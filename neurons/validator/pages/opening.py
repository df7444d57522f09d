"""The pages put together from a gateway's parts and settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from neurons.miner.errors import StartError
from neurons.validator.gateway.security_log import SecurityLog
from neurons.validator.gateway.settings import Settings
from neurons.validator.pages.cookies import Cookies
from neurons.validator.pages.desk import Desk
from neurons.validator.pages.doctors import Doctors
from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.licences import Licences, RegisterSettingError, registers
from neurons.validator.pages.overview import Overview
from neurons.validator.pages.patient import PatientPages
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.signed_out import SignedOut
from neurons.validator.pages.site import Pages
from neurons.validator.pages.turns import Conversations
from neurons.validator.pages.uploading import Uploading


@asynccontextmanager
async def open_pages(
    gateway: Gateway, *, settings: Settings, secret: bytes, http: aiohttp.ClientSession, log: SecurityLog
) -> AsyncIterator[Pages]:
    """Yield the pages; raises StartError with what to do about the settings.

    `secret`: that of session ids. `http`: by which registers of licences are asked.
    """
    if settings.pages_origin is None:
        raise StartError("name the address by which browsers reach the pages: --pages https://HOST")
    try:
        licences = Licences(registers(settings.licence_registers, http))
    except RegisterSettingError as error:
        raise StartError(f"--licence-registers: {error}") from None
    renderer = Renderer(country=settings.country)
    doctors = Doctors(roster=gateway.roster, twins=gateway.twins, licences=licences)
    patient = PatientPages(gateway, doctors=doctors, renderer=renderer, conversations=Conversations())
    desk = Desk(gateway, doctors=doctors, renderer=renderer)
    uploading = Uploading(gateway, doctors=doctors, renderer=renderer, store=settings.interactions_store)
    overview = Overview(gateway, renderer=renderer)
    try:
        yield Pages(
            origin=settings.pages_origin,
            cookies=Cookies(secret, secure=settings.pages_origin.startswith("https:")),
            keyring=gateway.keyring,
            signed_out=SignedOut(gateway.ledger),
            renderer=renderer,
            patient=patient,
            staff={
                ("GET", "/desk"): desk.twins,
                ("GET", "/desk/{twin}"): desk.questions,
                ("GET", "/desk/{twin}/learned"): desk.learned,
                ("GET", "/desk/{twin}/upload"): uploading.show,
                ("POST", "/desk/{twin}/upload"): uploading.take,
                ("GET", "/desk/{twin}/question/{question}"): desk.question,
                ("POST", "/desk/{twin}/question/{question}/correct"): desk.correct,
                ("GET", "/miners"): overview.miners,
            },
            per_minute=settings.pages_per_minute,
            log=log,
        )
    finally:
        await licences.close()
