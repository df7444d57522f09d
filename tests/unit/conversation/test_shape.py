"""Every template gets the doctor's rules and the whole conversation, in its own manner."""

from __future__ import annotations

import time

import pytest

from neurons.conversation import (
    DEFAULT,
    OPENING,
    Manner,
    Message,
    Refused,
    Reply,
    SystemPlace,
    TemplateProbe,
    is_plain,
    shape,
)
from neurons.trainer.turns import Turn, answered
from tests.standin import templates

FIRST_USER = Manner(system=SystemPlace.FIRST_USER_TURN, user_first=True)
MANNERS = {
    "chatml": (templates.CHATML, DEFAULT),
    "qwen3": (templates.QWEN3, DEFAULT),
    "qwen2.5": (templates.QWEN25, DEFAULT),
    "llama2": (templates.LLAMA2, Manner(user_first=True)),
    "mistral": (templates.MISTRAL, FIRST_USER),
    "gemma": (templates.GEMMA, FIRST_USER),
    "deaf": (templates.DEAF, Manner(system=SystemPlace.FIRST_USER_TURN)),
}
TALK: list[Message] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "I have a headache."},
    {"role": "assistant", "content": "Since when?"},
    {"role": "system", "content": "Answer in Nepali."},
    {"role": "user", "content": [{"type": "text", "text": "Since Monday."}]},
    {"role": "user", "content": "No, since Sunday."},
]


def settle(template: str, *, tells_tokens: bool = True) -> Manner | Refused:
    probe = TemplateProbe()
    for _ in range(6):
        asked = probe.next()
        if asked is None:
            break
        try:
            text = templates.render(template, list(asked.messages))
        except templates.Refusal as refusal:
            probe.take(Reply(refusal=str(refusal)))
        else:
            probe.take(Reply(prompt_tokens=len(text.split()) if tells_tokens else None))
    assert probe.result is not None
    assert probe.next() is None
    return probe.result


@pytest.mark.parametrize(("template", "manner"), MANNERS.values(), ids=MANNERS)
def test_at_most_six_questions_tell_a_templates_manner(template: str, manner: Manner) -> None:
    assert settle(template) == manner


def test_a_template_that_takes_nothing_is_told_in_its_own_words() -> None:
    assert settle(templates.BROKEN) == Refused("this model takes no conversation")


@pytest.mark.parametrize("shown", ["messages[-1:]", "messages[-3:]"])
def test_a_template_that_reads_only_the_last_turns_is_refused_in_words(shown: str) -> None:
    template = "{% for message in " + shown + " %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"
    refused = settle(template)
    assert isinstance(refused, Refused)
    assert "leaves out" in refused.why


def test_an_engine_that_counts_no_tokens_is_believed() -> None:
    assert settle(templates.CHATML, tells_tokens=False) == DEFAULT


@pytest.mark.parametrize(("template", "manner"), MANNERS.values(), ids=MANNERS)
def test_nothing_said_is_lost_in_any_template(template: str, manner: Manner) -> None:
    text = templates.render(template, shape(TALK, system="You are Dr. Gurung's twin.", manner=manner))
    said = [
        "You are Dr. Gurung's twin.", "Be brief.", "Answer in Nepali.", "I have a headache.", "Since when?",
        "Since Monday.", "No, since Sunday.",
    ]  # fmt: skip
    places = [text.index(words) for words in said]
    assert places == sorted(places)


@pytest.mark.parametrize(("template", "manner"), MANNERS.values(), ids=MANNERS)
def test_a_conversation_without_any_system_text_works_too(template: str, manner: Manner) -> None:
    assert "I have a headache." in templates.render(template, shape(TALK[1:3] + TALK[4:], system=None, manner=manner))


def test_the_twins_and_the_clients_system_texts_are_one_message() -> None:
    messages = shape(TALK, system="You are Dr. Gurung's twin.")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == "You are Dr. Gurung's twin.\n\nBe brief.\n\nAnswer in Nepali."


def test_a_first_user_turn_of_parts_keeps_its_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = shape([{"role": "user", "content": [image]}], system="Rules.", manner=FIRST_USER)
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "Rules."}, image]}]


def test_a_conversation_that_the_doctor_begins_gets_the_rules_before_it() -> None:
    messages = shape([{"role": "assistant", "content": "Hello."}], system="Rules.", manner=FIRST_USER)
    assert [message["role"] for message in messages] == ["user", "assistant"]


GREETED: list[Message] = [{"role": "assistant", "content": "How can I help?"}, {"role": "user", "content": "A cough."}]


@pytest.mark.parametrize("system", [None, "Rules."])
@pytest.mark.parametrize(("template", "manner"), MANNERS.values(), ids=MANNERS)
def test_a_conversation_that_the_twin_begins_is_taken_by_every_template(
    template: str, manner: Manner, system: str | None
) -> None:
    text = templates.render(template, shape(GREETED, system=system, manner=manner))
    places = [text.index(words) for words in (*([system] if system else ()), "How can I help?", "A cough.")]
    assert places == sorted(places)


def test_only_a_template_that_begins_with_the_user_gets_a_turn_before_the_greeting() -> None:
    assert shape(GREETED, system=None) == GREETED
    assert shape(GREETED, system=None, manner=FIRST_USER) == [{"role": "user", "content": OPENING}, *GREETED]
    assert shape(GREETED[:1], system="Rules.", manner=FIRST_USER)[0] == {"role": "user", "content": "Rules."}


@pytest.mark.parametrize("system", [None, "Rules."])
@pytest.mark.parametrize("manner", [DEFAULT, Manner(user_first=True), FIRST_USER])
def test_what_comes_before_a_greeting_is_the_beginning_of_the_conversation(manner: Manner, system: str | None) -> None:
    """So that a greeting can be learned: as the answer to what stands before it."""
    whole = shape(GREETED, system=system, manner=manner)
    for count in range(len(GREETED)):
        before = shape(GREETED[:count], system=system, manner=manner)
        assert whole[: len(before)] == before
        assert whole[len(before)] == GREETED[count]


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize(("template", "manner"), MANNERS.values(), ids=MANNERS)
def test_two_turns_of_one_speaker_are_one_to_every_template_as_they_are_learned(
    template: str, manner: Manner, role: str
) -> None:
    turns: list[Message] = [
        {"role": "user", "content": "A cough."},
        {"role": "assistant", "content": "Since when?"},
        {"role": "user", "content": "Monday."},
    ]
    at = 2 if role == "assistant" else 3
    turns[at:at] = [{"role": role, "content": "And something else."}]
    laid = shape(turns, system=None, manner=manner)
    assert [message["role"] for message in laid] == ["user", "assistant", "user"]
    learned = answered([Turn(**turn) for turn in (*turns, {"role": "assistant", "content": "Rest."})], None)
    assert [message.model_dump() for message in learned.messages[:-1]] == laid
    assert "And something else." in templates.render(template, laid)


def test_joined_turns_keep_what_else_they_have_and_no_name_that_is_one_of_twos() -> None:
    first, second = {"role": "user", "content": "A.", "name": "ann"}, {"role": "user", "content": "B.", "name": "bob"}
    assert shape([first, second], system=None) == [{"role": "user", "content": "A.\n\nB."}]
    assert shape([first, first], system=None) == [{"role": "user", "content": "A.\n\nA.", "name": "ann"}]
    thought: Message = {"role": "assistant", "content": "C.", "reasoning": "Hm."}
    assert shape([{"role": "assistant", "content": ""}, thought], system=None) == [thought]


def test_a_very_long_row_of_one_speakers_turns_is_joined_in_no_time() -> None:
    """A body of 1 MiB holds that many, and everybody else's answers wait while it is joined."""
    turn: Message = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    began = time.process_time()
    [joined] = shape([turn] * 40_000, system=None)
    assert time.process_time() - began < 0.4
    assert len(joined["content"]) == 40_000


def test_calls_of_tools_are_not_joined_with_speech() -> None:
    call: Message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    said: Message = {"role": "assistant", "content": "It is fine."}
    asked: Message = {"role": "user", "content": "Is it?"}
    assert shape([asked, call, said], system=None, manner=FIRST_USER) == [asked, call, said]


def test_the_clients_messages_stay_as_they_are() -> None:
    before = [dict(message) for message in TALK]
    shape(TALK, system="Rules.", manner=FIRST_USER)
    assert before == TALK


@pytest.mark.parametrize(
    ("roles", "plain"),
    [
        ("user", True),
        ("user assistant user", True),
        ("user user", False),
        ("system user", False),
        ("", True),
        ("assistant user", False),
        ("tool", False),
    ],
)
def test_what_is_plain(roles: str, plain: bool) -> None:
    assert is_plain([{"role": role, "content": "x"} for role in roles.split()]) is plain
