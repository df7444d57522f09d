"""Which words are anybody's rather than somebody's: ordinary words, medicines, and the ordinary words that people are called by.

A list never outweighs a sentence that says whose name it is ("my name is …", "my brother …", "Mr …", "Patient: …"): these
lists say only what a model's guess, or a weak announcement such as "this is …", is worth.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

_DATA: Final = resources.files("neurons.privacy") / "data"


def _lines(name: str) -> frozenset[str]:
    return frozenset((_DATA / name).read_text(encoding="utf-8").split())


NAME_WORDS: Final = frozenset(
    # English given names
    """abel amber angel april art ash aspen august autumn bill blaze bliss bob brandy brook buddy bunny carol chance charity chase chip christian clay
    cliff coral courtney crystal daisy dale dawn dean destiny diamond dick dixie drew duke earl eden eve faith fern flora forest frank
    frost gale gene ginger glen grace grant guy hank happy harmony harsh hazel heath heather holly honey honor hope hunter iris ivy jack jade
    jasmine jean jewel joy june justice kitty lance laurel lily linden lucky major mark marina mark marshal mason max may melody mercy merry
    miles misty nick nova olive opal pansy pat patience peace pearl penny petal pierce poppy precious prince prudence queen rain raven ray red
    reed rich river rob robin rocky rod rose ruby rusty ruth sage sandy scout serenity shade sky star stella sterling stew stone storm sue summer
    sunny temperance trinity trip unity van venus victor victory violet wade ward wayne will willow winter young
    """.split()  # fmt: skip
    # Nepali given names, and halves of them, that are ordinary words
    + """aasha amrit ananda asha bal bel bhim bikas bikash bir bishal buddhi chandra chinta dev dhan dharma dil gyan hari indra jaya jeet jit jun
    jyoti kamal kanchha kanchhi kanti karma kiran kopila kul kumar lakshya lal laxmi lila lok mahat maila man mandir manju maya milan mohan moti nar
    nirmal om pabitra phul prakash prem priya puja purna push puspa rajan rati ratna sagar saila sansar santosh sapana sapna sarala shanti shova shakti
    sher subha sudha suk sundar suraj surya sushil tara tek thulo tika tul uday ujjwal umanga yam""".split()
)  # fmt: skip
"""Ordinary words that are given names too: a name only where something says so."""

SURNAME_WORDS: Final = frozenset(
    """archer ball banks barber barker bean berry best bird bishop black blue bond booth bowl bridge bridges brook brooks brown buck bull bush butcher
    butler byrd carpenter carter cash chambers chandler church clay close cole collier constable cook cotton couch cross crow cruise dale day dean
    drake draper drum farmer field fields finch fish fisher flood flower flowers foot ford forest forester foster fountain fowler fox foxe freeman
    french friend frost fuller gates glass glover gold golden gray green grey grove hall hand hands hardy head heart hill holder holiday hood hope
    house hunt hunter ice joiner king kings knight lake lamb land lane law leach leaf light little long love low lowe lock marsh marshall mason masters
    may meadows merchant mills miller moon moore moss mountain nail noble north painter paige park parker parks parrott pepper piper pitt plant pond pool
    pope porter post potter pound powers price prince quick rains ray reader reading rice rich ridge rivers roads rock root rose rush salmon savage school
    sharp sheets shepherd short silver singer skinner slaughter small smart smith snow south speed spring spencer stage steel stern still stone storm street
    strong summer summers swan swift tailor tanner taylor temple thorn tiller tree turner underwood vale wall walker waller ward waters weaver webb weeks
    wells west wheeler white wild winter winters wise wolf wood woods work worth wright young english french welsh england ireland holland london israel jordan shields burns barnes
    ale gurau guru lama magar pande pant pokhari puri rana rai sah""".split()
)  # fmt: skip
"""Ordinary words that are surnames too: part of a name beside a given one."""

ORDINARY: Final = _lines("ordinary_words.txt")
"""English words that medical texts write in lower case; what people are called by is not taken out of it."""

MEDICINES: Final = _lines("medicines.txt")
"""Brands and generic names, mostly of India, Nepal and the United States."""

ROMANISED_ORDINARY: Final = frozenset(
    """abastha achar adha adhi aglo akha aakha akhama aankha allergy amilo amilopan anga anuhar ausadhi aushadhi badam badhi bachcha bachha baccha balak balika
    bandh bans bari barsat basna bela beluka bhat bhaat bhok bhitta bihana bihe bikalpa bish bojh bolna budha budhi byatha chala chamal chamcha
    chaya chhala chhahari chilaucha chilaune chimeki chimekile chini chinta chiso chiya chot chup dahi dahine dal dant danta dar darta dawai dhado dhancha
    dhulo dhuwa dimag dishaa dudh dukha dukhi dukhai dukhna dulna ganda ganga garbha garbhavati garbhawati garmi gas ghaito ghanta ghinau ghiu
    ghokro ghuda ghunda goli golo gulio gyas haat haddi halka hapta hasna hawa hidna hiddai hinsa hospital hridaya ilaj jadi janai jan jal jangh jhada
    jhol jibro jor jorni joro kaam kaancho kabj kachaa kalejo kam kamar kamjori kamjor kan kanchi kapda karan kasto katha khaali khaja
    khal khali khatara khatra khel khol khoki khop khuda khushi khutta kidney kohi komal kra ku kura lamo lakshan
    lasun lugaa maasu machha mahinawari man manchhe manche mandir maran marda maasik masu matha mathi mukh mukha muto mutu muskil nadi nak nani nasa nasha naso
    nidra ninda nilo niko niyam niyamit nun pachan pahila paila paisa pakhala palika pani parhej parikshan pasina pathegar patuka payo peth phal phokso phul
    phohor pida pinas piro pisab pitta pratyek prasab pugdo rag ragat rahat rakta raktachap ramro rashi rato roga rog ruga rughakhoki rughaa
    rukh ruwai saaf sabun safa sahi sahayata sajilo sallah samaya samanya samasya sancho saral sarir sarirma sas seto sewan shakti sikka
    sugar sukha sukhdo sunchha sunna suruma susta suti sutna swas swasth swasthya tablet taagat tagat talu tama tanau tanka tarkari tato tel thakai thakan thando
    thik thulo thuk tikha timro tok tauko udar umer umir unko upachar upaya uthda vitamin yatra zaruri jaruri srimati shrimati sriman shriman chhimeki
    chimeki darja nagarpalika wada oda ghaam barkha janma mrityu badhchha ghatchha""".split()
)
"""Ordinary Nepali words in Latin letters: food, body, illness, household."""

_STRENGTH: Final = re.compile(r"(?:[-\s](?:\d+|[A-Z]{1,3}|forte|plus|duo|max|neo|retard|spas|advance)|\d+)*$", re.IGNORECASE)
_NEPALI_VERB: Final = re.compile(
    r"(?:daina|dainan|dina|dinan|chh?a|chh?u|chh?au|chh?an|chh?in|chh?ha|thiyo|thiye|thyo|[aei]ko|[aei]ki|[aei]ka|nuhos|nus|nuhuncha|nuhunchha|nuparchha"
    r"|nuparcha|iyo|eyo|ayo|[^aeiou]yo|yeu|era|ira|inchh?a|indaina|aunu|anu|dai|hosla|yos|namaa?|nalai|nuparne)$"
)  # fmt: skip
_NOT_VERBS: Final = frozenset(["bhanu", "manu", "sanu", "tanu", "ranu", "hira", "mira", "nira", "vera", "indira", "samira", "tamira", "anu", "radhika"])


def is_medicine(word: str) -> bool:
    """Tell whether a word, or a few, are a medicine, with its strength or form behind it or not ("Telma", "Pan-D", "Montair LC")."""
    lower = word.lower().strip("'’-").replace(" ", "-")
    return lower in MEDICINES or _STRENGTH.sub("", lower, count=1) in MEDICINES


def is_nepali_verb(word: str) -> bool:
    """Tell whether a romanised word in lower case ends as verbs do ("lagdaina", "khanu"), and names hardly ever."""
    return word.islower() and len(word) > 4 and word not in _NOT_VERBS and _NEPALI_VERB.search(word) is not None


NEPALI_FUNCTION: Final = frozenset(
    """aba achel afai aja aaja ajai ahile aile ali alik ani aru atyanta aune baki bata bhane bhaye bhanda bhari bhayo bhitra bholi chahi chai cha chha chaina
    chhaina dekhi dherai din dinma dinko eti ek ekdam euta feri garda garna garne garnu gayo hajur hijo hola huda hudaina hune huncha hunchha hunna jasto
    jati kahile kahilekahi kaha kasari kasto kati ke khali khana kina ko kun lagi lai lagyo le ma mathi maile majale malai matra mero mildaina naya ni
    pachi pachhi pahila pani parchha parcha ra rati sadhai sadhain samma sanga sita sabai sakina tala tala tapai tara teso tesko tin tyo uhale usko uslai
    usle vane yesto yo yeti""".split()
)  # fmt: skip


def is_nepali_sentence(text: str) -> bool:
    """Tell whether a text in Latin letters is Nepali, by its small words and verbs: no model was taught to read it."""
    words = re.findall(r"[a-z]+", text.lower())
    small = sum(word in NEPALI_FUNCTION or (len(word) > 5 and is_nepali_verb(word)) for word in words)
    return small >= 2 and small * 5 >= len(words)  # noqa: PLR2004 - one may be chance, and a fifth is no English text
