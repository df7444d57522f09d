"""How long a shared examiner leaves the GPU idle between two askings: `python -m tests.bench.examinations`.

The real `neurons.examiner` on real stores: twins with 200 conversations and 20 items each, all safety items, adapters
fetched, datasets held against what is asked, answers scored. Asking alone is a stand-in: it waits so many seconds for
each version, as a process waits for a GPU, and answers by chance, always the same. Idle is the whole time less that.
Prints a line of JSON for each repeat, with a digest of all that the gate and a doctor are told.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.examination import OUTCOMES_KEY
from bettertherapy_api.manifest import BaseModelEntry, Lineage, manifest_digest
from bettertherapy_api.run_progress import REVIEW_KEY
from neurons.examiner import __main__ as examiner
from neurons.examiner import run as examination
from neurons.examiner.examination import Said
from neurons.store import build_manifest, publish_adapter
from neurons.trainer import answers
from neurons.trainer.archive import Archive
from neurons.trainer.dataset import canonical, parse_lines
from neurons.trainer.progress import Progress
from tests.gpu.many_runs import NAME, Clinic
from tests.unit.store.lora_files import write_lora

_SAID: Final = "rest cool water warm tea call emergency services now see me on Monday"
_REPORTS: Final = 8
"""While a version is asked."""


class Asked:
    """Stands in for asking a version: waits, and answers by chance."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.waited = seconds, 0.0

    def __call__(self, _base: Any, asking: Any, voice: Any, *, report: Any) -> Said:
        for number in range(_REPORTS):
            time.sleep(self._seconds / _REPORTS)
            report(len(asking) * (number + 1) // _REPORTS)
        self.waited += self._seconds
        draw = random.Random(f"{asking.digest} {voice.digest}")
        return Said(
            [" ".join(draw.choices(_SAID.split(), k=60)) for _ in asking.conversations],
            [tuple(-draw.uniform(5, 80) for _ in each.continuations) for each in asking.compared],
        )


async def publish(clinic: Clinic, twin: str) -> str:
    """Put a twin's dataset and a version of it into the store; return the version's digest."""
    archive = Archive(f"file://{clinic.folder}/store", twin)
    lines = parse_lines((clinic.folder / "data" / twin / "day.jsonl").read_bytes(), where=twin)
    _, dataset = await archive.put_dataset(canonical(lines))
    made = write_lora(clinic.folder / "made" / twin)
    manifest = build_manifest(
        made, base_model=BaseModelEntry(name=NAME), lineage=Lineage(run=f"{twin}-1", dataset_digest=dataset)
    )
    await publish_adapter(made, archive.store, twin, manifest)
    return manifest_digest(manifest.to_bytes())


def measure(clinic: Clinic, digests: dict[str, str], *, seconds: float) -> dict[str, Any]:
    """Examine all twins in one process; return how long it took."""
    told: dict[str, Progress] = {}

    def progress(*, configmap: str, **options: Any) -> Progress:
        options.pop("field_manager", None)
        told[configmap] = Progress(attempt="a pod", target=None, **options)
        return told[configmap]

    asked = Asked(seconds)
    examination.ask = asked
    examiner.progress_of_environment = progress  # type: ignore[assignment]
    groups = [
        [
            *clinic._base(twin), f"--run-uid=uid-{twin}", f"--child-digest={digest}",
            f"--progress-configmap={twin}",
        ]
        for twin, digest in digests.items()
    ]  # fmt: skip
    arguments = [argument for group in groups for argument in ("+", *group)][1:]
    begun, processor = time.monotonic(), time.process_time()
    with redirect_stdout(StringIO()):
        status = examiner.main(arguments, termination_log=Path("/nonexistent"))
    took = time.monotonic() - begun
    documents = [told[twin].documents()[key] for twin in digests for key in (OUTCOMES_KEY, REVIEW_KEY)]
    return {
        "status": status, "seconds": round(took, 2), "idle_a_twin": round((took - asked.waited) / len(digests), 2),
        "processor_a_twin": round((time.process_time() - processor) / len(digests), 2),
        "told": hashlib.sha256("\n".join(documents).encode()).hexdigest()[:16],
    }  # fmt: skip


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.examinations", description=__doc__)
    parser.add_argument("--twins", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a version's asking (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    answers.made_with = lambda: "a stand-in"
    idle = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            (folder / "model").mkdir()
            clinic = Clinic(folder / "clinic", folder / "model", conversations=200, seed=0)
            twins = [clinic.twin(f"twin-{number}") for number in range(options.twins)]
            digests = {twin: asyncio.run(publish(clinic, twin)) for twin in twins}
            found = measure(clinic, digests, seconds=options.seconds)
        idle.append(found["idle_a_twin"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    spread = {"min": min(idle), "median": statistics.median(idle), "max": max(idle)}
    sys.stdout.write(json.dumps({"idle_a_twin": spread}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
