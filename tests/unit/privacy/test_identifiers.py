from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurons.privacy import Identifier, find_identifiers

CONVERSATIONS = Path(__file__).parents[3] / "local" / "demo" / "conversations"

FOUND = [
    ("place", "म पाटन अस्पतालमा भर्ना भएको थिएँ।"),
    ("place", "मेरो घर थाहा नगरपालिकामा छ।"),
    ("name", "Hello, my name is Jane Roe and my knee hurts."),
    ("name", "hi my name is jane, i cough"),
    ("name", "Mrs. Roe came in with a cough."),
    ("name", "Mr Sharma's leg is swollen."),
    ("name", "I am Jane Roe, I have a rash."),
    ("name", "This is Peter Miller. I feel faint."),
    ("name", "My son Tom has a fever."),
    ("name", "My eldest daughter is called Maya."),
    ("name", "Patient: John Smith"),
    ("name", "Thank you.\nBest wishes, Sunita"),
    ("phone", "Call me at 555-123-4567."),
    ("phone", "My number is +977 980 123 4567."),
    ("phone", "Reach me on (212) 555 0199"),
    ("phone", "555-1234 is my phone"),
    ("phone", "full-width \uff15\uff15\uff15-\uff11\uff12\uff13-\uff14\uff15\uff16\uff17"),
    ("email", "Write to jane.roe@example.org please"),
    ("email", "jane (at) example.org"),
    ("date", "It began on 12 March."),
    ("date", "It began on March 12th, 2024."),
    ("date", "I had surgery in March 2021."),
    ("date", "Since January I am tired."),
    ("date", "2024-03-12 was the day"),
    ("date", "Surgery 3/12/24"),
    ("date", "My birthday is the 5th."),
    ("recordNumber", "My MRN is 4482910."),
    ("recordNumber", "medical record number: A-55123"),
    ("recordNumber", "insurance policy no. KX83-2210"),
    ("recordNumber", "card 4111 1111 1111 1111"),
    ("vehiclePlate", "the licence plate was ABC-1234"),
    ("recordNumber", "hospital number 00451"),
    ("vehiclePlate", "a car with AB12 CDE hit me"),
    ("vehiclePlate", "VIN 1HGCM82633A004352"),
    ("deviceSerial", "my pacemaker serial number PM-338201"),
    ("deviceSerial", "the pump's address is 00:1B:44:11:3A:B7"),
    ("socialSecurityNumber", "123-45-6789"),
    ("socialSecurityNumber", "my social security is 123456789"),
    ("licenceNumber", "my driving licence is D1234567"),
    ("url", "I read it on https://example.org/me?id=4"),
    ("url", "see www.janes-blog.net today"),
    ("url", "my page is janeroe.com"),
    ("ipAddress", "from 192.168.10.44"),
    ("ipAddress", "from 2001:db8::ff00:42:8329"),
    ("ageOver89", "I am 92 years old."),
    ("ageOver89", "My mother is 94 and dizzy."),
    ("ageOver89", "a 101-year-old man"),
    ("ageOver89", "she is ninety-three years old"),
    ("postcode", "I live in 90210."),
    ("postcode", "Springfield, IL 62704"),
    ("postcode", "my zip code is 10001"),
    ("postcode", "near SW1A 1AA"),
    ("address", "I live at 12 Baker Street."),
    ("place", "I come from Pokhara."),
    ("biometricOrPhoto", "The rash is on IMG_2231.jpg."),
]

CLEAN = [
    "आजै अस्पताल जानुहोस्, एक्लै नबस्नुहोस्।",
    "केही नखाई आजै अस्पताल गएर शल्यचिकित्सकलाई जँचाउनुहोस्।",
    "तुरुन्त अस्पतालको आकस्मिक कक्षमा पुर्‍याउनुहोस्।",
    "तुरुन्त १०२ बोलाएर अस्पताल जानुहोस्।",
    "आजै प्रसूति अस्पतालमा भर्ना हुनुहोस्।",
    "भित्र के छ थाहा नभई नखानुहोस्।",
    "See Dr. Gurung on Tuesday and Friday, 9 to 1.",
    "— Dr. Okafor",
    "My name is Dr. Indra Gurung, how can I help?",
    "My blood pressure was 150 over 95 today, before 120/80.",
    "Take 500 mg three times a day, at most 4,000 mg in 24 hours.",
    "Vitamin D 10000 IU once a week, or 1000 IU daily for 3 months.",
    "I am 45 years old and I have had asthma since 2015.",
    "My pulse is 95 and my sugar is 110.",
    "She weighs 92 kg; it is 98.6 degrees.",
    "My LDL 130, HDL 45, HbA1c 7.2%, CA-125 was 35.",
    "You may take it in the morning; it may help.",
    "COVID-19 and HLA-B27 were negative, type 2 diabetes too.",
    "Call 911, 112 or 988 at once. Poison control: 1-800-222-1222.",
    "I am Nepali and I am Diabetic.",
    "My son, I think he has a fever. My daughter has a rash.",
    "The pain is 7/10, after 1/2 tablet it is 3/10.",
    "My name is on the list.",
    "A medicine called Metformin helps my mother.",
    "Is it safe to march for 10 km?",
    "Repeat 8-10 times, rest 2-3 minutes, on days 1 2 3 4 5 6 7.",
    "The patient is 80 and the case is mild.",
    "In case 1000 mg are too much, the patient took 1500 mg; the pump gives 0.5 units.",
    "Of 2000 cases 1200 were mild, as my record says.",
    "My platelets were 150,000 and my white cells 11,000.",
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_an_identifier_is_found(kind: str, text: str) -> None:
    assert Identifier(kind) in {finding.kind for finding in find_identifiers(text)}


@pytest.mark.parametrize("text", CLEAN)
def test_plain_medicine_is_let_through(text: str) -> None:
    assert [(finding.kind.value, text[finding.start : finding.end]) for finding in find_identifiers(text)] == []


@pytest.mark.parametrize("twin", ["dr-indra-gurung", "dr-tomas-okafor"])
def test_a_doctors_conversations_are_let_through(twin: str) -> None:
    for line in (CONVERSATIONS / f"{twin}.jsonl").read_text().splitlines():
        for message in json.loads(line)["messages"]:
            assert find_identifiers(message["content"]) == ()


def test_a_finding_tells_where_and_keeps_no_text() -> None:
    text = "Hi, my name is Jane Roe."
    (finding,) = find_identifiers(text)
    assert text[finding.start : finding.end] == "Jane Roe"
    assert "Roe" not in repr(finding)


def test_every_kind_has_an_example_that_is_found() -> None:
    assert {kind for kind, _ in FOUND} == {kind.value for kind in Identifier}


@pytest.mark.parametrize("piece", ["1 ", "1-", "a.", ":", "Aa ", "@", "1.", "my name is ", "0:", "in "])
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    find_identifiers(piece * 16_000)  # within the suite's time limit


HIDDEN = [
    ("phone", "Call me at 555\u200b123\u200b4567"),
    ("phone", "Call me at 555\u00ad123\u00ad4567."),
    ("phone", "\u202a+49 170 1234567\u202c"),
    ("phone", "555\ufe0f-123\u2060-4567"),
    ("email", "mail maria\u200b@example.com"),
    ("email", "maria@exam\u00adple.com"),
    ("name", "my name is \u2068Maria\u2069"),
    ("name", "my name is\u200bMaria"),
    ("name", "my na\u00adme is Maria"),
    ("name", "\ufeffPatient: John Smith"),
    ("date", "born on \u206812\u2069 March"),
    ("socialSecurityNumber", "123\u200d-45-\u200c6789"),
    ("recordNumber", "MRN\u3164is 4482\u1160910"),
]


@pytest.mark.parametrize(("kind", "text"), HIDDEN)
def test_characters_that_nobody_sees_hide_no_identifier(kind: str, text: str) -> None:
    assert Identifier(kind) in {finding.kind for finding in find_identifiers(text)}


def test_a_finding_among_invisible_characters_tells_its_place_in_the_text_as_it_was_written() -> None:
    text = "\ufeffHi, my\u00ad name is \u2068Ja\u200bne\u2069, hello."
    (finding,) = {text[each.start : each.end] for each in find_identifiers(text)} - {"Ja"}
    assert finding == "Ja\u200bne"


@pytest.mark.parametrize("text", ["नमस्ते, घुटने में दर्द\u200d है।", "👩\u200d⚕️ said: rest it.", "co\u00adagulation: INR 2.5"])
def test_invisible_characters_alone_are_no_identifier(text: str) -> None:
    assert find_identifiers(text) == ()
