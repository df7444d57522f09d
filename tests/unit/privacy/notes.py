"""Notes with known identifiers, made by a seed: all classes of Safe Harbor, English and Nepali in both scripts.

Names come from Faker's lists and from the held-out half of our own; none of them is in the lists that the measured
recognisers know (`gazetteer(without_held_out=True)`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from faker import Faker

from neurons.privacy.gazetteer import entries, gazetteer, is_held_out

LANGUAGES: Final = ("english", "nepali romanised", "nepali devanagari")
_SLOT: Final = re.compile(r"\{(\w+)\}")

ENGLISH: Final = (
    "My name is {name} and I have had a cough since {date}.",
    "{lowername} from {town} here, my knee hurts when I climb stairs. Call me on {phone}.",
    "Hi doctor, this is {lowername}. I take 500 mg metformin twice a day and feel dizzy.",
    "Saw {name} in clinic on {date}. BP 150 over 95, pulse 88. Lives at {address}.",
    "{name}, MRN {record}, was admitted with chest pain. Fax the results to {phone}.",
    "Please write to {email} or call {phone}. Thanks, {first}",
    "My mother {first} is {age} and forgets her tablets.",
    "She is {age} and lives alone in {town}.",
    "My social security number is {ssn} and my health plan number is {record}.",
    "The file number… {record}. My account number is {record}.",
    "My pacemaker serial number is {device}. It was put in on {date}.",
    "A car with the plate {plate} hit me, my neck hurts since yesterday.",
    "My driving licence {licence} says that I need glasses.",
    "I put a picture on {url}, it is {photo}. Is it shingles?",
    "I write from {ip}. {name} told me that you know about Crohn's disease.",
    "We moved to {town}, zip code {zip}, and my asthma got worse.",
    "Discharge summary: {name} was seen by Dr. Hill on {date} for Addison's disease. Contact: {phone}.",
    "The fingerprint ID {biometric} of my insulin pump app does not work any more.",
    "My son {first} had a fever of 39.2 on {date}. {first2} gave him ibuprofen.",
    "you can reach my wife {lowername} on {spelledphone} after 6 pm",
    "I asked {name} about it, and {name2} said the same. My LDL is 130.",
    "Certificate number {record}, membership no. {record}. What vaccines do I need in {town}?",
    "Thanks,\n{lowername}",
    "I was born on {date} in {town}. Is a colonoscopy due?",
    "Patient: {name}\nDOB: {date}\nTel: {phone}\nComplaint: burning urine for 3 days.",
)
ROMANISED: Final = (
    "Mero naam {nname} ho, {ntown} bata lekhdai chhu. Tauko dukhcha.",
    "{lowernname} from {ntown}, pet dukheko 3 din bhayo.",
    "Namaste doctor, ma {nname} hun. {bsdate} dekhi jwaro aayo.",
    "Mero chhora {nfirst} lai khoki lagyo. Phone {nphone}.",
    "Dhanyabad, {nfirst}",
    "Hajurama {age94} barsa ko hunuhunchha, ghar {ntown}.",
    "Gadi number {nplate} le hanyo, khutta dukhcha.",
    "Citizenship no {citizenship}, darta no {record}. Rakta chap 150/95 chha.",
    "I am {nname}, the pain began on {bsdate}. My number is {nphone}.",
    "{nname} was seen at the clinic in {ntown} on {bsdate} with typhoid.",
    "mero number {spellednphone} ma call garnu",
    "My daughter {nfirst} lives in {ntown} and takes 5 ml of cetamol.",
    "Thank you doctor. {nname}, {ntown}",
)
DEVANAGARI: Final = (
    "मेरो नाम {dname} हो। मलाई {ddate} देखि ज्वरो छ।",
    "म {dname} हुँ, {dtown}बाट लेख्दैछु। टाउको दुख्छ।",
    "नमस्ते डाक्टर, मेरो छोरा {dfirst}लाई खोकी लागेको छ। फोन {dphone}।",
    "श्रीमती {dname} लाई ३ दिनदेखि पेट दुखेको छ।",
    "मेरो आमा {dage} वर्षको हुनुहुन्छ, घर {dtown} हो।",
    "धन्यवाद, {dname}",
    "गाडी नम्बर {dplate} ले हान्यो, खुट्टा दुख्छ।",
    "नागरिकता नं {dcitizenship}, बिरामी दर्ता नं {drecord}।",
    "{dname} जी {ddate} मा अस्पताल आउनुभयो, रक्तचाप १५०/९५ थियो।",
    "{dsurnamed} ले ५०० मिलिग्राम औषधि खाएको छ।",
    "मेरो फोन {dspelled} हो।",
)
CLEAN: Final = (
    "Take 500 mg three times a day, at most 4,000 mg in 24 hours. See a doctor if the fever lasts 3 days.",
    "My blood pressure was 150 over 95 and my pulse 96. Is 10 mg of amlodipine enough?",
    "Could it be Addison's disease, Cushing or Graves? My TSH is 0.1 and I lost 6 kg in 2 months.",
    "I cleaned the bath with Mr Muscle and my eyes burn.",
    "टाउको दुख्छ, ३ दिनदेखि ज्वरो छ, के गर्ने?",
    "Malai 3 din dekhi jwaro chha, 500 mg cetamol khaye. Aba ke garne?",
    "Call 1-800-222-1222 for poison control, or 988. Since last week my lower abdomen hurts.",
    "What does a Glasgow coma scale of 14 mean? The MRI shows L4/L5 disc bulging.",
)
DIGIT_WORDS: Final = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ROMAN_DIGITS: Final = ["sunya", "ek", "dui", "tin", "char", "panch", "chha", "saat", "aath", "nau"]
DEVANAGARI_DIGITS: Final = ["शून्य", "एक", "दुई", "तीन", "चार", "पाँच", "छ", "सात", "आठ", "नौ"]
MONTHS: Final = [
    "Baisakh",
    "Jestha",
    "Asar",
    "Shrawan",
    "Bhadra",
    "Asoj",
    "Kartik",
    "Mangsir",
    "Poush",
    "Magh",
    "Falgun",
    "Chaitra",
]
DEVANAGARI_MONTHS: Final = ["बैशाख", "जेठ", "असार", "साउन", "भदौ", "असोज", "कार्तिक", "मंसिर", "पुस", "माघ", "फागुन", "चैत"]
QUARTERS: Final = [
    "Naradevi",
    "Jhochhen",
    "Dillibazar",
    "Sanepa",
    "Tokha",
    "Khokana",
    "Bungamati",
    "Sankhu",
    "Handigaun",
    "Gyaneshwor",
    "Battisputali",
    "Bafal",
    "Tinkune",
    "Hattiban",
]
DEVANAGARI_QUARTERS: Final = [
    "नरदेवी",
    "झोछेँ",
    "डिल्लीबजार",
    "सानेपा",
    "खोकना",
    "बुङमती",
    "साँखु",
    "हाँडीगाउँ",
    "ज्ञानेश्वर",
    "बत्तीसपुतली",
    "काठमाडौं",
    "पोखरा",
    "बुटवल",
    "इटहरी",
]
CLASSES: Final = {
    "name": "name", "first": "name", "lowername": "name", "nname": "name", "nfirst": "name", "lowernname": "name", "dname": "name",
    "dfirst": "name", "dsurnamed": "name", "town": "place", "ntown": "place", "dtown": "place", "address": "address", "zip": "postcode",
    "date": "date", "bsdate": "date", "ddate": "date", "age": "ageOver89", "age94": "ageOver89", "dage": "ageOver89", "phone": "phone", "nphone": "phone",
    "dphone": "phone", "spelledphone": "phone", "spellednphone": "phone", "dspelled": "phone", "email": "email", "ssn": "socialSecurityNumber", "record": "recordNumber",
    "citizenship": "recordNumber", "dcitizenship": "recordNumber", "drecord": "recordNumber", "licence": "licenceNumber", "plate": "vehiclePlate",
    "nplate": "vehiclePlate", "dplate": "vehiclePlate", "device": "deviceSerial", "url": "url", "ip": "ipAddress", "photo": "biometricOrPhoto",
    "biometric": "biometricOrPhoto",
}  # fmt: skip


@dataclass(frozen=True)
class Note:
    """A note, and where its identifiers stand."""

    text: str
    language: str
    spans: tuple[tuple[str, int, int], ...]


LOCALES: Final = ("en_US", "en_GB", "en_IN", "es_MX", "de_DE")
"""Whose names were looked at when something was missed."""
OTHER_LOCALES: Final = ("da_DK", "fi_FI", "ro_RO", "sl_SI", "en_IE")
"""Whose names were not: they tell what the mechanism is worth."""


def notes(count: int, *, seed: int, locales: tuple[str, ...] = LOCALES) -> Iterator[Note]:
    """Yield notes: half English, a quarter each Nepali, an eighth without any identifier."""
    maker = _Maker(seed, locales)
    for index in range(count):
        if index % 8 == 7:
            text = CLEAN[index // 8 % len(CLEAN)]
            yield Note(text, LANGUAGES[0 if text.isascii() else 2], ())
            continue
        language = LANGUAGES[(0, 0, 1, 2)[index % 4]]
        templates = {LANGUAGES[0]: ENGLISH, LANGUAGES[1]: ROMANISED, LANGUAGES[2]: DEVANAGARI}[language]
        yield maker.note(templates[index // 4 % len(templates)], language)


@cache
def held_out_nepali() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return given names and surnames, romanised, that the measured lists lack."""
    known = gazetteer(without_held_out=True)
    each = [entry for entry in entries() if is_held_out(entry.roman) and entry.roman.lower() not in known.names]
    return tuple(e.roman for e in each if e.kind == "given"), tuple(e.roman for e in each if e.kind == "surname")


@cache
def held_out_devanagari() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the same in Devanagari."""
    known = gazetteer(without_held_out=True)
    each = [
        entry
        for entry in entries()
        if entry.devanagari and is_held_out(entry.roman) and entry.devanagari not in known.names
    ]
    return (tuple(str(e.devanagari) for e in each if e.kind == "given"),
            tuple(str(e.devanagari) for e in each if e.kind == "surname"))  # fmt: skip


class _Maker:
    def __init__(self, seed: int, locales: tuple[str, ...]) -> None:
        self.random = random.Random(seed)
        self.fakers = [Faker(locale) for locale in ("en_US", *locales)]
        self.people = self.fakers[-len(locales) :]
        for faker in self.fakers:
            faker.seed_instance(seed)

    def note(self, template: str, language: str) -> Note:
        text, spans, done = "", [], 0
        for match in _SLOT.finditer(template):
            text += template[done : match.start()]
            kind = match[1].rstrip("2")
            value = self.value(kind)
            spans.append((CLASSES[kind], len(text), len(text) + len(value)))
            text += value
            done = match.end()
        return Note(text + template[done:], language, tuple(spans))

    def value(self, kind: str) -> str:  # noqa: PLR0911 - one line a kind
        choose, number = self.random.choice, self.random.randint
        us, any_faker, lower_faker = self.fakers[0], choose(self.people), self.people[0]
        digits = f"{number(10**9, 10**10 - 1)}"
        mobile = f"98{number(10**7, 10**8 - 1)}"
        given, surnames = held_out_nepali()
        dgiven, dsurnames = held_out_devanagari()
        match kind:
            case "first":
                return any_faker.first_name()
            case "name":
                return f"{any_faker.first_name()} {any_faker.last_name()}"
            case "lowername":
                return f"{lower_faker.first_name()} {lower_faker.last_name()}".lower()
            case "nname":
                return f"{choose(given)} {choose(surnames)}"
            case "nfirst":
                return choose(given)
            case "lowernname":
                return f"{choose(given)} {choose(surnames)}".lower()
            case "dname" | "dsurnamed":
                return f"{choose(dgiven)} {choose(dsurnames)}"
            case "dfirst":
                return choose(dgiven)
            case "town":
                return us.city()
            case "ntown":
                return choose(QUARTERS)
            case "dtown":
                return choose(DEVANAGARI_QUARTERS)
            case "address":
                return us.street_address()
            case "zip":
                return us.postcode()
            case "date":
                return us.date_object().strftime(
                    choose(["%B %d, %Y", "%d %B %Y", "%m/%d/%Y", "%Y-%m-%d", "%d.%m.%Y", "%b %d"])
                )
            case "bsdate":
                return choose(
                    [
                        f"{number(1, 31)} {choose(MONTHS)}",
                        f"{choose(MONTHS)} {number(1, 31)}",
                        f"20{number(60, 82)}/{number(1, 12):02}/{number(1, 30):02}",
                    ]
                )
            case "ddate":
                return _devanagari(
                    choose(
                        [
                            f"{number(1, 31)} {choose(DEVANAGARI_MONTHS)}",
                            f"{choose(DEVANAGARI_MONTHS)} {number(1, 31)} गते",
                        ]
                    )
                )
            case "age":
                return choose(["ninety-four", "92", "ninety two", "101", "ninety-one"])
            case "age94":
                return str(number(90, 104))
            case "dage":
                return choose([_devanagari(str(number(90, 104))), "चौरानब्बे", "बयानब्बे"])
            case "phone":
                a, b, c = f"2{digits[1:3]}", digits[3:6], digits[6:]
                return choose(
                    [
                        f"({a}) {b}-{c}",
                        f"{a}-{b}-{c}",
                        f"{a}.{b}.{c}",
                        f"+1 {a} {b} {c}",
                        f"+44 7{digits[:3]} {digits[3:9]}",
                    ]
                )
            case "nphone":
                return choose([mobile, f"+977 {mobile}", f"{mobile[:3]}-{mobile[3:]}", f"01-4{digits[:6]}"])
            case "dphone":
                return _devanagari(mobile)
            case "spelledphone":
                return " ".join(DIGIT_WORDS[int(each)] for each in digits)
            case "spellednphone":
                return " ".join(ROMAN_DIGITS[int(each)] for each in mobile)
            case "dspelled":
                return " ".join(DEVANAGARI_DIGITS[int(each)] for each in mobile)
            case "email":
                return us.email()
            case "ssn":
                return us.ssn()
            case "record":
                return choose([digits[:5], digits[:7], f"{choose('ABHKM')}{digits[:6]}", f"{digits[:3]}-{digits[3:8]}"])
            case "citizenship":
                return f"{digits[:2]}-{digits[2:4]}-{digits[4:6]}-{digits[5:]}"
            case "dcitizenship":
                return _devanagari(f"{digits[:2]}-{digits[2:4]}-{digits[4:6]}-{digits[5:]}")
            case "drecord":
                return _devanagari(digits[:6])
            case "licence":
                return f"{choose('ABDKS')}{digits[:7]}"
            case "plate":
                return us.license_plate()
            case "nplate":
                return f"{choose(['Ba', 'Lu', 'Ga', 'Na', 'Ko'])} {number(1, 20)} {choose(['Pa', 'Cha', 'Kha', 'Ja'])} {digits[:4]}"
            case "dplate":
                return _devanagari(
                    f"{choose(['बा', 'लु', 'ग', 'को'])} {number(1, 20)} {choose(['प', 'च', 'ख'])} {digits[:4]}"
                )
            case "device":
                return f"{choose(['PM', 'SN', 'XR', 'MDT'])}-{digits[:6]}"
            case "url":
                return f"www.{us.domain_name()}/{us.user_name()}"
            case "ip":
                return us.ipv4()
            case "photo":
                return f"IMG_{digits[:4]}.jpg"
            case "biometric":
                return f"FP-{digits[:5]}-{choose('ABC')}"
        raise KeyError(kind)


def _devanagari(text: str) -> str:
    return text.translate({ord("0") + digit: 0x966 + digit for digit in range(10)})
