"""Puts a round's processes together: ledger, chain, roster, judge and sources, as the order and the settings say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from bettertherapy_api.round_progress import (
    RECOMPUTED_KEY,
    WEIGHTS_KEY,
    Recomputation,
    RoundOrder,
    WeightsProgress,
    read_document,
)
from neurons.chain import Chain, ChainError, ColdkeyError, Hotkey, MetagraphReader, WalletError, load_hotkey
from neurons.cluster import ClusterAccessError, ClusterClient
from neurons.ledger import Ledger, Miner, Twin
from neurons.lessons.embedding import EmbedderMissing
from neurons.lessons.model import load_embedder
from neurons.miner.upstream import Upstream
from neurons.privacy import Deidentifier, DeidentifierUnavailable, log_failing
from neurons.receipts import neuron_of
from neurons.sources import Source, SourceError
from neurons.sources.local import LocalCorpus
from neurons.sources.medlineplus import MedlinePlus
from neurons.sources.openfda import OpenFda
from neurons.sources.plugins import open_plugin
from neurons.sources.pubmed import PubMed
from neurons.sources.rxnav import RxNav
from neurons.validator.gateway.asking import Asker, Patience
from neurons.validator.gateway.files import FileError, FollowedFile
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.scrubbing import PrivacyScrubber, ScrubbedOnDemand
from neurons.validator.gateway.standing import Standings
from neurons.validator.gateway.twins import Twins, TwinsFile
from neurons.validator.rounds.asking import Examiner
from neurons.validator.rounds.challenges import OWN, ChallengeError, ChallengeSet, load_challenges
from neurons.validator.rounds.conclude import Results
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.handing_out import HandingOut, SignedPost
from neurons.validator.rounds.judging import open_panel, seats_of
from neurons.validator.rounds.measures import vtrust
from neurons.validator.rounds.progress import ConfigMapTeller, Progress, Remembered, Teller
from neurons.validator.rounds.prometheus import read_speeds
from neurons.validator.rounds.round import Means, RoundRun, now_ms, recompute
from neurons.validator.rounds.scoring import Scorer
from neurons.validator.rounds.setting import Setter, last_row, read_consensus
from neurons.validator.rounds.settings import Settings
from neurons.validator.rounds.steps import Registered
from neurons.validator.rounds.subnet import RosterSubnet
from neurons.validator.rounds.topics import Topics
from neurons.wire.signer import RequestSigner

log = logging.getLogger(__name__)

MINER_IDLE_SECONDS: Final = 15.0
CORPUS: Final = "local"
_PUBLIC_SOURCES: Final = frozenset({"medlineplus", "openfda", "pubmed", "rxnav"})


def read_order(path: Path) -> RoundOrder:
    """Return the order. Raises RoundError for a file that is none."""
    try:
        read = read_document(RoundOrder, path.read_text())
    except OSError as error:
        raise RoundError("BadOrder", f"the order {path} can't be read: {error.strerror}", retryable=True) from None
    if isinstance(read, str):
        raise RoundError("BadOrder", f"the order can't be read: {read}", retryable=False)
    return read


async def open_teller(settings: Settings, stack: AsyncExitStack) -> Teller:
    """Return to whom progress is told."""
    if settings.configmap is None or settings.namespace is None:
        return Remembered()
    try:
        client = await stack.enter_async_context(ClusterClient())
    except ClusterAccessError as error:
        log.warning("progress is not reported: %s", error)
        return Remembered()
    return ConfigMapTeller(client, namespace=settings.namespace, name=settings.configmap)


async def run_round(settings: Settings, order: RoundOrder, ledger: Ledger, progress: Progress) -> Results:
    """Hold the round. Raises RoundError, LedgerError."""
    async with AsyncExitStack() as stack:
        hotkey = _hotkey(settings)
        chain = _chain(order, stack)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=MINER_IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=settings.answer_seconds + 5), auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "bettertherapy"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        )  # fmt: skip
        patience = Patience(deadline=settings.answer_seconds)
        upstream = await stack.enter_async_context(
            Upstream(connect_seconds=patience.connect, idle_seconds=MINER_IDLE_SECONDS)
        )
        signer, twins = RequestSigner(hotkey.keypair), Twins(_twins_file(settings))
        roster = Roster(
            MetagraphReader(chain, order.netuid), signer, session,
            private_addresses=chain.is_local or settings.private_addresses, poll_seconds=3600.0,
        )  # fmt: skip
        asker = Asker(
            roster=roster, standings=Standings(), twins=twins, signer=signer, upstream=upstream, metrics=Metrics(),
            patience=patience,
        )  # fmt: skip
        subnet = RosterSubnet(roster, twins)
        sends = order.scoring.judge is not None or bool(_PUBLIC_SOURCES & set(order.scoring.sources))
        deidentifier = await asyncio.to_thread(_deidentifier) if sends else None
        sources = await open_sources(settings, order, deidentifier, stack)
        judge = None
        if order.scoring.judge is not None:
            seats = seats_of(order.scoring.judge, key=settings.judge_key)
            judge, _ = await open_panel(seats, kept=(), finder=deidentifier)
            if judge is not None:
                stack.push_async_callback(judge.close)

        def served() -> Mapping[str, Twin]:
            return {name: twins.of_ledger(name) for name in subnet.twins()}

        async def trust() -> float | None:
            try:
                consensus = await read_consensus(chain, order.netuid)
            except ChainError as error:
                log.warning("the consensus can't be read: %s", error)
                return None
            rows = await ledger_row(ledger, roster, hotkey, order)
            return vtrust(rows, consensus)

        means = Means(
            ledger=ledger, subnet=subnet,
            examiner=Examiner(asker, scrub=PrivacyScrubber(deidentifier) if deidentifier else ScrubbedOnDemand()),
            scorer=Scorer(judge=judge, sources=sources, corpus=CORPUS if CORPUS in sources else None),
            speeds=lambda: read_speeds(settings.prometheus_url, session=session),
            challenges=lambda: challenges_of(order), validator=lambda seen: own(seen, hotkey), trust=trust,
            twins=served, ask_seconds=order.deadline_seconds * settings.ask_share,
            handing_out=HandingOut(
                ledger=ledger, subnet=subnet, keypair=hotkey.keypair, post=SignedPost(session, signer), now_ms=now_ms,
                classify=Classifier(order),
            ),
        )  # fmt: skip
        return await RoundRun(order, means, progress).run()


async def set_weights_of(settings: Settings, order: RoundOrder, ledger: Ledger, teller: Teller) -> WeightsProgress:
    """Set the round's weights. Raises RoundError, LedgerError."""

    async def tell(said: WeightsProgress) -> None:
        await teller.tell(WEIGHTS_KEY, said)

    async with AsyncExitStack() as stack:
        setter = Setter(
            ledger=ledger, chain=_chain(order, stack), hotkey=_hotkey(settings), holder=settings.attempt[:64], tell=tell
        )
        return await setter.set(order)


async def recompute_round(settings: Settings, order: RoundOrder, ledger: Ledger, teller: Teller) -> Recomputation:
    """Reckon the round's digest once more, and tell it; what stands against that is told as well."""
    at = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    token = settings.token[:128]
    try:
        results = await recompute(ledger, order.uid)
    except RoundError as error:
        said = Recomputation(token=token, time=at, message=str(error))
    else:
        said = Recomputation(token=token, time=at, digest=results.digest)
    await teller.tell(RECOMPUTED_KEY, said)
    return said


def challenges_of(order: RoundOrder) -> ChallengeSet:
    """Return the set of questions that the order names, or the image's own. Raises ChallengeError."""
    if order.challenges is None:
        return load_challenges(OWN, digest=order.challenge_digest)
    url = URL(order.challenges)
    if url.scheme != "file":
        raise ChallengeError("a set of questions is a file: name it as file:///PATH")
    return load_challenges(Path(url.path), digest=order.challenge_digest)


class Classifier:
    """Tells topics by the order's set of questions; what that takes is loaded when it is first asked."""

    def __init__(self, order: RoundOrder) -> None:
        self._order = order
        self._topics: Topics | None = None

    def __call__(self, questions: Sequence[str]) -> Sequence[str | None]:
        """See `handing_out.Classify`."""
        try:
            if self._topics is None:
                self._topics = Topics(challenges_of(self._order).challenges, load_embedder())
        except (EmbedderMissing, ChallengeError) as error:
            log.warning("nobody can tell what patients' questions are about: %s", error)
            return [None] * len(questions)
        return self._topics.of(questions)


def own(seen: Registered, hotkey: Hotkey) -> Miner:
    """Return who this validator is. Raises RoundError where it isn't registered."""
    for each in seen.entrants:
        if each.miner.hotkey == hotkey.address:
            return each.miner
    raise RoundError(
        "NotRegistered", f"{hotkey.address} isn't registered on the subnet (block {seen.block}): register it with its "
        "coldkey", retryable=True,
    )  # fmt: skip


async def ledger_row(ledger: Ledger, roster: Roster, hotkey: Hotkey, order: RoundOrder) -> dict[int, float]:
    """Return the weights by UID that this validator last had in force."""
    metagraph = roster.reading.metagraph
    own_row = neuron_of(metagraph.neurons, hotkey.address) if metagraph is not None else None
    if own_row is None:
        return {}
    validator = Miner(hotkey=own_row.hotkey, registered_block=own_row.block_at_registration)
    return await last_row(ledger, validator=validator, netuid=order.netuid)


async def open_sources(
    settings: Settings, order: RoundOrder, deidentifier: Deidentifier | None, stack: AsyncExitStack
) -> dict[str, Source]:
    """Return the sources that the order names, by their names; one that can't be had is left out and told."""
    found: dict[str, Source] = {}
    for path in settings.corpora[:1]:
        try:
            digest = path.with_name(f"{path.name}.digest").read_text().strip()
            found[CORPUS] = await LocalCorpus.open(path, digest=digest, name=CORPUS, licence="as its texts say")
        except (OSError, SourceError) as error:
            raise RoundError(
                "SourcesUnreachable", f"the corpus {path.name} can't be used: {error}", retryable=False
            ) from None
    for name in order.scoring.sources:
        if name in found:
            continue
        try:
            found[name] = _source(name, settings, deidentifier)
        except SourceError as error:
            log.warning("the source %s can't be asked: %s", name, error)
    for source in found.values():
        stack.push_async_callback(source.close)
    return found


def _source(name: str, settings: Settings, deidentifier: Deidentifier | None) -> Source:
    if name not in _PUBLIC_SOURCES:
        return open_plugin(name, {})
    if deidentifier is None:
        raise SourceError("nothing is sent to it while identifiers can't be looked for")
    match name:
        case "medlineplus":
            return MedlinePlus(finder=deidentifier)
        case "openfda":
            return OpenFda(finder=deidentifier)
        case "pubmed":
            return PubMed(finder=deidentifier, email=settings.pubmed_email)
        case _:
            return RxNav(finder=deidentifier)


def _deidentifier() -> Deidentifier | None:
    try:
        return Deidentifier.load()
    except DeidentifierUnavailable as error:
        log_failing(log, error, effect="no answer to a patient's question is kept")
        return None


def _hotkey(settings: Settings) -> Hotkey:
    try:
        return load_hotkey(settings.wallet_dir)
    except ColdkeyError as error:
        raise RoundError("ColdkeyFound", str(error), retryable=False) from None
    except WalletError as error:
        raise RoundError("WalletMissing", str(error), retryable=False) from None


def _chain(order: RoundOrder, stack: AsyncExitStack) -> Chain:
    try:
        chain = Chain(order.network)
    except ValueError as error:
        raise RoundError("BadOrder", f"{order.network} is no chain: {error}", retryable=False) from None
    stack.push_async_callback(chain.close)
    return chain


def _twins_file(settings: Settings) -> FollowedFile[TwinsFile] | None:
    if settings.twins_file is None:
        return None
    try:
        return FollowedFile(settings.twins_file, TwinsFile, what="twins")
    except FileError as error:
        raise RoundError("BadOrder", str(error), retryable=True) from None
