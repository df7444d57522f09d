"""Figures in the pages are the code's: each sentence here is made of the constants that it tells of.

Who changes a constant is sent to the sentence; who changes the sentence sees here where its figure comes from.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from bettertherapy_api import judging
from bettertherapy_api.gate import budget, learning, metrics
from bettertherapy_api.routing import TWINS_PER_SLICE
from neurons.agent import gates, known_answers, oddities, second_looks
from neurons.agent import lessons as agent_lessons
from neurons.agent import places as agent_places
from neurons.agent.settings import Settings as AgentSettings
from neurons.examiner import arguments as examiner_arguments
from neurons.examiner import examination
from neurons.examiner import learning as learned
from neurons.ledger import draining, handover
from neurons.lessons import context, likeness
from neurons.lessons import file as lessons_file
from neurons.miner import asked, attempt, completions, history, lesson_feed, lessons, limits, memory, patient, tasks
from neurons.miner import settings as miner_settings
from neurons.models import eviction
from neurons.scoring import clarity, items, near_duplicates
from neurons.sources import corpus, documents, kept, medlineplus, openfda, passage, pubmed, rxnav
from neurons.store import finite
from neurons.trainer import arguments as trainer_arguments
from neurons.trainer import dataset, divergence, fingerprint, launch, lines, probes, schedule, sharding
from neurons.trainer import turns as trained_turns
from neurons.validator.gateway import checking, deliveries, roster, sessions, standing, task_desk
from neurons.validator.gateway import service as gateway_service
from neurons.validator.pages import cookies, licences, site, uploading
from neurons.validator.pages import turns as pages_turns
from neurons.validator.rounds import examining, handing_out, measures, setting
from neurons.validator.rounds import tasks as round_tasks
from neurons.wire import announcement
from tests.conftest import ROOT
from twin_operator.domain import baseline, canary_analysis, scaling, scaling_signals, sizing, slow_replicas, tuning
from twin_operator.kinds.finetune_run import plan as run_plan
from twin_operator.kinds.finetune_run import trainer_job
from twin_operator.kinds.miner_pool import access_secret, miner_deployment
from twin_operator.kinds.podspec import disk
from twin_operator.kinds.validator import datasets_cronjob, made_once
from twin_operator.kinds.validator_round import jobs as round_jobs
from twin_operator.settings import Settings as OperatorSettings

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
IN_WORDS: Final = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 10: "ten"}


def number(value: float) -> str:
    """Write it as the pages do: 20,000, and 30 without a point that says nothing."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def minutes(seconds: float) -> str:
    return IN_WORDS[round(seconds / 60)]


SENTENCES: Final[dict[str, tuple[str, ...]]] = {
    "docs/adapters.md": (
        f"fixed text of at most {fingerprint._MAX_TOKENS} tokens as token ids",
        f"with {IN_WORDS[fingerprint._DECIMALS]} decimals in `logprobs` and {IN_WORDS[probes._DECIMALS]} in `probes`",
        f"(the trainer makes 4 of {probes._LENGTH} tokens)",
        f"NaN, infinite or beyond ±{number(finite.LARGEST)}",
        f"A pod fetches {IN_WORDS[AgentSettings.fetches]} adapters at once",
        f"One that brought nothing for {number(gates.SLOW_FETCH_SECONDS)} s while others wait",
        f"asks again every {number(known_answers.CHECK_SECONDS)} s",
        f"the third waits {number(known_answers.PAUSE_SECONDS)} s before it is ended",
        f"a text of {agent_places.LONG_TOKENS} tokens (fewer where",
        f"every {number(second_looks.LOOK_SECONDS)} s the one that wasn't looked at for longest",
        f"{IN_WORDS[oddities.ENOUGH]} of the last twenty answers",
        f"without a word, the last {oddities._TAIL} characters",
    ),
    "docs/api-for-clients.md": (
        f"nested at most {asked._MAX_DEPTH} deep",
        f"at most {limits.Limits.answers} answers",
        f"{number(limits.Limits.messages)} messages, {limits.MOST_WORDS} texts in `stop`",
        f"{number(completions._MOST_EMBEDDED)} texts to embed",
        f"At most {IN_WORDS[attempt.MAX_BEGUN]} engines begin a request",
        f"`--hold-seconds`: {number(miner_settings.Settings.hold_seconds)} s, of a pool that may "
        f"[sleep](scaling.md) {miner_deployment.SLEEPER_HOLD_SECONDS} s",
        f"{number(miner_settings.Settings.turn_seconds)} s at most (`--turn-seconds`)",
        f"A body has at most {miner_settings.MAX_BODY_BYTES // MIB} MiB",
    ),
    "docs/architecture.md": (
        f"at most {TWINS_PER_SLICE} twins each, by UID",
        f"when the Lease runs out ({OperatorSettings.lease_duration} s)",
    ),
    "docs/candidates.md": (f"at most {miner_settings.MAX_CACHE_BYTES // MIB} MiB",),
    "docs/datasets.md": (
        f"more than {lines.MAX_LINE_BYTES // KIB} KiB, or the last answer doesn't fit",
        f"the system prompt in {number(trainer_job.MAX_TOKENS)} tokens",
        f"of more than {trained_turns.MAX_TURNS} turns",
        f"more than {dataset.MAX_DATASET_BYTES // MIB} MiB. Messages name file",
        f"at most {number(items.MAX_ITEMS)}, in {items.MAX_BYTES // MIB} MiB",
        f"the answer is cut after {examination.CHOICE_TOKENS} tokens",
        f"are common (Jaccard {near_duplicates.LIKENESS})",
    ),
    "docs/fine-tuning.md": (
        f"`epochs`, `maxSteps` | {schedule.DEFAULT_EPOCHS}, none",
        f"`rank`, `alpha`, `method` | {trainer_job.RANK}, twice the rank",
        f"`rehearsalPercent` | {trainer_arguments.REHEARSAL_PERCENT} |",
        f"`klWeight` | {trainer_arguments.KL_WEIGHT} |",
        f"`validationPercent` | {trainer_arguments.VALIDATION_PERCENT} |",
        f"no more often than every {number(trainer_arguments.CHECKPOINT_SECONDS)} s",
        f"takes up to {sharding.MOST_OF_A_GPU:.0%} of one GPU's memory",
        "waiting for half an hour ends it then" if launch.PATIENCE_SECONDS == 1800 else "other patience",
        f"Answers are examined up to {examiner_arguments.ANSWER_TOKENS} tokens",
        f"shares one error of {budget.BUDGET:.0%}",
        f"after {IN_WORDS[budget.TRIES]} it is over",
        f"one error of {budget.BUDGET:.0%} is shared among {budget.LOOKS} nights",
        f"has the floor {metrics.CALM_FLOOR}, or `minSafetyPercent`",
        f"{1 / canary_analysis.ERROR_ALARMS:.0f} to 1 | {canary_analysis.ERROR_ALARMS:.1%}",
        f"{1 / canary_analysis.LATENCY_ALARMS:.0f} to 1 | {canary_analysis.LATENCY_ALARMS:.1%}",
        f"{1 / canary_analysis.RATING_ALARMS:,.0f} to 1 | {canary_analysis.RATING_ALARMS:.1%}",
        f"{canary_analysis.SLOW_SHARE:.0%} may be slower",
        f"more than {number(divergence.MOST_CHANGE)} times its own size",
        f"less probable by {number(divergence.MOST_RISE)} nats a token",
        "an hour after its end; a day when it failed"
        if (run_plan.TIDIED_AFTER.total_seconds(), run_plan.FAILED_TIDIED_AFTER.total_seconds()) == (3600, 86400)
        else "other times",
    ),
    "docs/gateway.md": (
        f"announced the twin in the last {number(roster.KEEP_SECONDS / 60)} minutes",
        f"from another time ({checking.CLOCKS_APART_MS // 60_000} min)",
        f"begins with {number(standing.FIRST_CAPACITY)} questions at once",
        f"up to {number(standing.MOST_CAPACITY)}; a failure halves it; "
        f"{IN_WORDS[standing.FAILURES_UNTIL_REST]} in a row",
        f"left alone for {number(standing.FIRST_REST_SECONDS)} s, doubling to a minute",
        f"({sessions.KEEP_SECONDS / 3600:.0f} h, {number(sessions.MAX_SESSIONS)} sessions, "
        f"{sessions.MAX_ALL_CHARACTERS // MIB} Mi characters in all)",
        f"within {draining.GATHER_SECONDS} s, up to {draining.AT_ONCE} questions a transaction",
        f"more than {memory.SMALL_BYTES // KIB} KiB get three quarters"
        if gateway_service.LARGE_PERCENT == 75
        else "other",
        f"chain (looked at every {gateway_service.CHAIN_POLL_SECONDS / 60:.0f} min, a local subnet every "
        f"{number(gateway_service.LOCAL_POLL_SECONDS)} s)",
        f"{task_desk.MOST_FETCHES} fetches and {task_desk.MOST_REPORTS} reports at once",
        f"a report has {number(task_desk.READ_SECONDS)} s to arrive",
        f"SQLite on a claim of {made_once.STATE_SIZE}",
    ),
    "docs/judging.md": (
        f"Below {judging.MIN_ITEMS} items nobody is calibrated",
        f"has to lie above {judging.MIN_KAPPA} (`min_kappa`)",
        f"at least {IN_WORDS[judging.MIN_INJECTIONS]} injections",
        f"1 up to grade {number(clarity.GRADE_FOR_PATIENTS)}, 0 from {number(clarity.HARDEST)} on",
        f"under {clarity.MIN_WORDS} words",
    ),
    "docs/ledger.md": (
        f"the last {IN_WORDS[handover.DAYS]} days (`--days`, at most {handover.MOST_DAYS})",
        f"It is tried {IN_WORDS[datasets_cronjob._ATTEMPTS_MORE + 1]} times, within an hour",
    ),
    "docs/lessons.md": (
        f"or {number(history.DEFAULT_ANSWER_TOKENS)} tokens, or a quarter",
        f"At most {lessons.MOST} lessons and {number(lessons.MOST_BYTES)} bytes",
        f"conversation's last {lessons.QUESTIONS} questions",
        f"{lessons_file.MAX_LESSONS} lessons, {lessons_file.MAX_BYTES // MIB} MiB, "
        f"{number(lessons_file.MAX_QUESTION)} characters a question and an answer",
        f"(a line each, {context.MAX_SAID} characters)",
        f"beside each engine looks every {number(agent_lessons.LAP_SECONDS)} s",
        f"miners ask the agents every {number(lesson_feed.LAP_SECONDS)} s",
        f"or after {number(lesson_feed.FIRST_SECONDS)} s",
        f"within {lessons.FIND_SECONDS} s; without it",
        f"Floor {likeness.FLOOR} (`LESSON_FLOOR`)",
        f"need {likeness.SURE}",
        f"whole years to {patient.MAX_AGE}",
        f"up to {patient.MAX_ITEMS} conditions and medicines of one line, at most {patient.MAX_ITEM} characters",
    ),
    "docs/operations.md": (
        f"its first {baseline.LEARN_REQUESTS} requests",
        f"its first {baseline.LEARN_RATINGS} ratings",
        f"more than {baseline.TOLERATED_TAIL:.0%} take longer",
        f"windows of {minutes(baseline.WINDOW_SECONDS)} minutes",
        f"{disk.MODEL_SIZES['CPU']} with device CPU, {disk.MODEL_SIZES['GPU']} with GPU",
        f"adapters of one engine pod | {disk.ADAPTERS_SIZE} |",
        f"trainer or examiner | {disk.ENGINE_SCRATCH}, {disk.JOB_SCRATCH} |",
        f"without a size | {disk.EXTRA_SIZE} |",
        f"that was used within {minutes(eviction.GRACE_SECONDS)} minutes",
        f"takes over within about {OperatorSettings.lease_duration} s",
    ),
    "docs/pages.md": (
        f"one visitor has {site.VISITOR_PER_MINUTE} a minute, {site.VISITOR_BURST} at once",
        f"in a cookie for {cookies.STAFF_SECONDS // 3600} hours, or until an hour without",
        f"{uploading.MOST_CONVERSATIONS} at a time: shown with what is removed",
        "remembered for a day, failures for five minutes"
        if (licences.KEEP_SECONDS, licences.RETRY_SECONDS) == (86400, 300)
        else "other times",
        f"of conversations {pages_turns.MAX_CHARACTERS // MIB} MiB are held",
        f"After {cookies.VISITOR_SECONDS // 3600} hours, or",
    ),
    "docs/placement.md": (
        f"waits for it: {number(AgentSettings.demand_seconds)} s at most",
        f"`--max-cpu-loras` of `engine.args` says, else {tuning.LEAST_AT_HAND}",
        f"After {minutes(slow_replicas.TRIAL_SECONDS)} minutes it gets twins again",
        f"{IN_WORDS[slow_replicas.MOST_TRIAL_SECONDS // 3600]} hours at most",
        f"Who waited {number(miner_settings.Settings.turn_seconds)} s gets 429",
    ),
    "docs/receipts.md": (
        f"older than {number(miner_settings.SubnetSettings.max_age_seconds)} s or over "
        f"{number(miner_settings.SubnetSettings.skew_seconds)} s ahead",
        "half of the memory for requests, or three quarters with a small one "
        f"(up to {memory.SMALL_BYTES // KIB} KiB once it is read)"
        if (memory.UNPROVEN_PERCENT, memory.UNPROVEN_SMALL_PERCENT) == (50, 75)
        else "other shares",
        f"more than {number(announcement.MAX_TWINS)} twins or {number(announcement.MAX_VERSIONS)} versions",
    ),
    "docs/rounds.md": (
        f"goes on trying for {IN_WORDS[round_jobs.WEIGHTS_SECONDS // 3600]} hours",
        f"offered it again for {minutes(handing_out.LONGEST_SECONDS)} minutes",
        f"and {tasks.LEAST_SECONDS // 60} minutes are left",
        f"at most {deliveries.MOST_BYTES // GIB} GiB, each held",
        f"of {task_desk.MOST_DELIVERIES} tasks at once, and at {task_desk.SLOWEST_BYTES // KIB} KiB a second",
        f"wrote to them in the last {examining.HELD_OUT_DAYS} days",
        f"({learned.MOST_LESSONS} lines at most, of {learning.FEWEST_LESSONS} or more)",
        "taken half a percent off" if learning.LEAST_GAIN == 0.005 else "other gain",
        f"the last {round_tasks.TASK_DAYS} days were answered within {minutes(measures.SOON_MS / 1000)} minutes",
    ),
    "docs/running_on_testnet.md": (f"the release's version key, {setting.VERSION_KEY} so far",),
    "docs/running_on_mainnet.md": (f"--name weights_version --value {setting.VERSION_KEY}",),
    "docs/scaling.md": (
        f"hold what is asked for up to {miner_deployment.SLEEPER_HOLD_SECONDS // 60} minutes",
        f"loaded to {scaling.ROOM:.0%} of its targets",
        f"after {number(scaling.OLD_SECONDS)} s `MetricsUnavailable`",
        f"no sample of the last {scaling_signals.FRESH_SECONDS} s",
        f"has the last {IN_WORDS[sizing.RECORDS]} decisions",
    ),
    "docs/security.md": (
        f"parts and calls of tools of one request | {number(limits.Limits.messages)} |",
        f"of one client at once, at each miner | {number(memory.CLIENT_REQUESTS)} |",
        f"1 MiB, and {memory.MOST_OF_ONE // MIB} MiB once parsed",
        f"at most {number(limits.MOST_SCHEMA_PLACES)} places, patterns of {limits.MOST_PATTERN} characters",
        f"one random token of {access_secret.TOKEN_BYTES} bytes",
        f"at most {deliveries.MOST_BYTES // GIB} GiB and {IN_WORDS[deliveries.MOST_VERSIONS]} versions a task",
    ),
    "docs/sources.md": (
        f"{medlineplus.PER_SECOND * 60:.0f} requests a minute",
        f"{openfda.PER_SECOND * 60:.0f} a minute",
        f"{number(pubmed.PER_SECOND)} a second",
        f"{number(rxnav.PER_SECOND)} a second",
        "at most twelve of its content words"
        if max(medlineplus._WORDS, openfda._WORDS, pubmed._WORDS, rxnav._WORDS) == 12
        else "other words",
        f"has at most {documents.MAX_FILE_BYTES // GIB} GiB unpacked, a corpus a million texts, a text "
        f"{number(passage.MAX_TEXT)} characters"
        if corpus.MAX_DOCUMENTS == 1_000_000
        else "other bounds",
        f"kept for {kept.SECONDS / 3600:.0f} hours",
    ),
    "docs/tuning.md": (
        f"a power of two from {tuning.LEAST_SLOTS} to {tuning.MOST_SLOTS}",
        f"the next rank that vLLM knows, at least {tuning.LEAST_RANK}",
        f"a power of two, at least {tuning.LEAST_AT_HAND}, for all adapters",
        f"lacking for {tuning.DWELL.total_seconds() / 60:.0f} minutes",
        f"once in {tuning.INTERVAL.total_seconds() / 3600:.0f} hours at most",
    ),
}


@pytest.mark.parametrize(
    ("page", "sentence"), [(page, each) for page, sentences in SENTENCES.items() for each in sentences]
)
def test_a_figure_is_the_codes(page: str, sentence: str) -> None:
    text = re.sub(r"\s+", " ", (ROOT / page).read_text())
    assert sentence in text


MINERS: Final = miner_settings.parse(["--pool", "p", "--wallet-dir", "/wallet"], {"NONCE_STORE_URL": "redis://n"})


@pytest.mark.parametrize(
    ("page", "variable", "default"),
    [
        ("receipts.md", "DOORS", ",".join(sorted(MINERS.doors, reverse=True))),
        ("receipts.md", "MIN_VALIDATOR_STAKE", number(MINERS.subnet.min_stake) if MINERS.subnet else ""),
        ("candidates.md", "CANDIDATE_SCORERS", miner_settings.DEFAULT_SCORERS),
        ("candidates.md", "CANDIDATE_PATIENCE", number(MINERS.patience)),
        ("lessons.md", "LESSONS", MINERS.lessons),
        ("lessons.md", "LESSON_FLOOR", number(MINERS.lesson_floor)),
    ],
)
def test_a_variables_default_is_the_miners(page: str, variable: str, default: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ") and f"`{variable}`" in row.split(" | ")[0]]
    [cell] = {row.split(" | ")[1].strip().strip("`") for row in rows}
    assert cell == default
