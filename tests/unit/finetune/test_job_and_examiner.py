"""The operator's Job against the examiner that it starts: every argument, every place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from neurons.examiner import __main__ as examiner
from neurons.examiner.arguments import parser
from neurons.store.locations import local_folder
from neurons.trainer import progress
from neurons.trainer.reporting import progress_of_environment
from tests.unit.finetune.test_job_and_trainer import ITEMS, PARENT, POOL, WHOLE_RUN, WHOLE_TWIN
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.settings import Images

Json = dict[str, Any]
CHILD = digest("b")


def container(*, prompt: bool = True, **spec: Any) -> Json:
    made = build_examiner_job(run(**spec), twin(**WHOLE_TWIN), pool(**POOL), Images(), child=CHILD, prompt=prompt)
    [only] = made["spec"]["template"]["spec"]["containers"]
    assert only["command"] == ["python", "-m", "neurons.examiner"]
    found: Json = only
    return found


def understood(**spec: Any) -> argparse.Namespace:
    """What the examiner makes of the Job's command line; argparse exits on what it doesn't know."""
    return parser().parse_args(container(**spec)["args"])


def test_every_field_arrives() -> None:
    told = vars(understood(**WHOLE_RUN))
    assert told.pop("run_uid").startswith("uid-r1-")
    assert told == {
        "run": "r1", "twin": "dr-a", "store": "pvc://adapters/store", "base_model": Path("/models/current"),
        "base_model_name": "smollm2", "base_model_revision": "r7", "base_model_digest": None, "child_digest": CHILD,
        "parent_uri": "pvc://adapters/dr-a/a", "parent_digest": PARENT, "anchor": None, "anchor_uri": None,
        "eval_uri": "pvc://evals/dr-a/items.jsonl", "eval_digest": ITEMS,
        "system_prompt_file": Path("/etc/bettertherapy/run/system-prompt.txt"), "answer_tokens": 96,
        "kept": Path("/var/lib/bettertherapy/examined"), "work_dir": None, "languages": None,
        "progress_configmap": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("anchor", "told"),
    [
        ({"digest": digest("c")}, (digest("c"), f"pvc://adapters/store/dr-a/{'c' * 64}")),
        ({}, ("base", None)),
        (None, (None, None)),
    ],
)
def test_the_anchor_is_told_of(anchor: Json | None, told: tuple[str | None, str | None]) -> None:
    options = understood(**WHOLE_RUN, **({"anchor": anchor} if anchor is not None else {}))
    assert (options.anchor, options.anchor_uri) == told


def test_every_place_that_the_examiner_is_told_of_is_mounted_to_read() -> None:
    options = understood(**WHOLE_RUN, anchor={"digest": digest("c")})
    mounts = {
        each["mountPath"]: each.get("readOnly", False)
        for each in container(**WHOLE_RUN, anchor={"digest": digest("c")})["volumeMounts"]
    }
    child = f"{options.store}/{options.twin}/{'b' * 64}"
    for uri in (child, options.parent_uri, options.anchor_uri, options.eval_uri):
        folder = local_folder(uri)
        assert folder is not None
        around = [str(each) for each in (folder, *folder.parents) if str(each) in mounts]
        assert mounts[around[0]] is True, uri
    assert mounts[str(options.kept)] is False


def test_its_environment_says_where_it_reports_and_its_role_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"metadata.name": "r1-x", "metadata.namespace": "clinic", "metadata.uid": "uid-7"}
    for variable in container()["env"]:
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        monkeypatch.setenv(variable["name"], fields[path] if path else variable["value"])
    [rule] = build_role(run(), "r1-examiner", "examiner")["rules"]
    target = progress.Target(namespace="clinic", configmap=rule["resourceNames"][0])
    told = progress_of_environment(field_manager=examiner.FIELD_MANAGER)
    assert (told.document.attempt, told.target) == ("uid-7", target)
    [trainers] = build_role(run(), "r1-trainer", "trainer")["rules"]
    assert not {*rule["resourceNames"]} & {*trainers["resourceNames"]}, "neither writes the other's"
