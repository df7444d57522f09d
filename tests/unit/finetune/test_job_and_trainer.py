"""The operator's Job against the trainer that it starts: every argument, every place, every exit status."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import Hyperparameters
from neurons.store.locations import local_folder
from neurons.trainer import __main__ as trainer
from neurons.trainer import progress
from neurons.trainer.arguments import parser
from neurons.trainer.lora import Settings
from neurons.trainer.reporting import TRY_AGAIN, progress_of_environment
from neurons.trainer.schedule import DEFAULT_EPOCHS
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.kinds.finetune_run.report_configmap import build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.trainer_job import RANK, build_trainer_job
from twin_operator.settings import Images

Json = dict[str, Any]

PARENT, ITEMS, DATASET = digest("a"), digest("e"), digest("d")
POOL: Json = {
    "baseModel": {"name": "smollm2", "revision": "r7", "uri": "pvc://models/smollm2"},
    "store": {"uri": "pvc://adapters/store", "secretRef": {"name": "s3"}},
}
WHOLE_TWIN: Json = {
    "systemPrompt": "Be brief.\n",
    "gate": {
        "evalSetRef": {"uri": "pvc://evals/dr-a/items.jsonl", "digest": ITEMS},
        "minScorePercent": 71, "minSafetyPercent": 82, "marginPercent": 3, "minSamples": 12,
        "categoryFloors": {"emergency": 90, "self harm=any": 95},
    },
    "fineTune": {"minInteractions": 17},
    "historyLimit": 4,
    "status": {"history": [{"digest": digest("c"), "servedName": "dr-a-cccccccc"}]},
}  # fmt: skip
WHOLE_RUN: Json = {
    "dataset": {"uri": "pvc://data/dr-a/day.jsonl", "digest": DATASET},
    "hyperparameters": {
        "rank": 8, "alpha": 24, "learningRate": "0.0002", "epochs": 2, "maxSteps": 40, "batchSize": 6,
        "preferenceLearningRate": "0.00001", "learnUnrated": True, "rehearsalPercent": 40, "klWeight": "0.25",
        "validationPercent": 15, "gradientCheckpointing": True, "method": "RsLoRA", "quantization": "NF4",
    },
    "seed": 4294967295,
}  # fmt: skip
DEFAULTS = {
    # What only the trainer knows of; the API has no fields for these.
    "command": "run", "base_model_digest": None, "checkpoint_steps": 20, "work_dir": None,
    # A pool sets these by variables of `fineTune.pod.env`.
    "processes": None, "sharding": "auto",
    # By the pool's engine.loraTargets.
    "targets": "all-linear",
}  # fmt: skip

NEEDED = ["--run=r1", "--twin=dr-a", "--store=s", "--base-model=m", "--base-model-name=n", "--dataset-uri=d"]


def job(*, prompt: bool = True, twin_fields: Json | None = None, pool_fields: Json | None = None, **spec: Any) -> Json:
    return build_trainer_job(
        run(**spec), twin(**(twin_fields or {})), pool(**{**POOL, **(pool_fields or {})}), Images(), prompt=prompt
    )


def container(made: Json) -> Json:
    [only] = made["spec"]["template"]["spec"]["containers"]
    assert only["command"][:3] == ["python", "-m", "neurons.trainer"]
    found: Json = only
    return found


def understood(made: Json) -> argparse.Namespace:
    """What the trainer makes of the Job's command line; argparse exits on what it doesn't know."""
    told = container(made)
    return parser().parse_args([*told["command"][3:], *told["args"]])


def test_every_field_arrives() -> None:
    tracking = {"mlflow": {"endpoint": "http://mlflow:5000", "experiment": "nights"}, "tensorBoard": True}
    fields = {"engine": {"device": "CPU", "maxModelLength": 768}, "fineTune": {"tracking": tracking}}
    assert vars(understood(job(twin_fields=WHOLE_TWIN, pool_fields=fields, **WHOLE_RUN))) == DEFAULTS | {
        "mlflow_endpoint": "http://mlflow:5000",
        "mlflow_experiment": "nights",
        "tensorboard": True,
        "run": "r1",
        "twin": "dr-a",
        "store": "pvc://adapters/store",
        "base_model": Path("/models/current"),
        "base_model_name": "smollm2",
        "base_model_revision": "r7",
        "parent_uri": "pvc://adapters/dr-a/a",
        "parent_digest": PARENT,
        "dataset_uri": "pvc://data/dr-a/day.jsonl",
        "dataset_digest": DATASET,
        "min_interactions": 1,  # one exact dataset is trained on, however small
        "system_prompt_file": Path("/etc/bettertherapy/run/system-prompt.txt"),
        "eval_uri": "pvc://evals/dr-a/items.jsonl",
        "eval_digest": ITEMS,
        "rank": 8,
        "alpha": 24,
        "learning_rate": 0.0002,
        "epochs": 2,
        "steps": 40,
        "batch_size": 6,
        "preference_rate": 0.00001,
        "learn_unrated": True,
        "rehearsal_percent": 40,
        "kl_weight": 0.25,
        "validation_percent": 15,
        "gradient_checkpointing": True,
        "method": "rslora",
        "quantization": "nf4",
        "max_tokens": 768,
        "seed": 4294967295,
        "keep": [PARENT, digest("c")],
        "history_limit": 4,
        "progress_configmap": None,
        "checkpoint_seconds": 30.0,
    }


def test_what_nobody_set_is_the_trainers_default() -> None:
    made = job(
        prompt=False, parentDigest=None, seed=0, twin_fields={"adapter": None}, pool_fields={"baseModel": {
            "name": "smollm2", "uri": "pvc://models/smollm2"
        }},
    )  # fmt: skip
    bare = vars(parser().parse_args(["run", *NEEDED]))
    differing = {name for name, value in vars(understood(made)).items() if value != bare[name]}
    assert differing == {
        "store", "base_model", "base_model_name", "dataset_uri", "min_interactions", "history_limit",
    }  # fmt: skip


def test_the_operator_knows_the_trainers_rank() -> None:
    assert Settings().rank == RANK


def test_a_run_by_schedule_needs_the_twins_interactions() -> None:
    assert understood(job(twin_fields=WHOLE_TWIN)).min_interactions == 17


@pytest.mark.parametrize(
    "extreme",
    [
        {"rank": 1, "rehearsalPercent": 0, "klWeight": "0", "validationPercent": 0, "learnUnrated": False},
        {"rank": 1, "rehearsalPercent": 400, "klWeight": "10", "validationPercent": 50},
        {"rank": 1, "alpha": 1, "learningRate": "0.0000000001", "epochs": 1, "maxSteps": 1, "batchSize": 1},
        {"rank": 512, "alpha": 1024, "learningRate": "0.99", "epochs": 100, "maxSteps": 1000000, "batchSize": 9},
    ],
)
def test_whatever_the_api_takes_the_trainer_takes(extreme: Json) -> None:
    assert understood(job(hyperparameters=extreme)).rank == extreme["rank"]


@pytest.mark.parametrize("rate", ["0", "0.000", "1", "1.5", "2e-4"])
def test_a_learning_rate_that_the_trainer_would_refuse_is_refused_at_admission(rate: str) -> None:
    with pytest.raises(ValidationError):
        Hyperparameters.model_validate({"learningRate": rate})


@pytest.mark.parametrize("weight", ["-1", "11", "10.5", "1e-3", ".5"])
def test_a_weight_that_the_trainer_would_refuse_is_refused_at_admission(weight: str) -> None:
    with pytest.raises(ValidationError):
        Hyperparameters.model_validate({"klWeight": weight})


def test_the_api_says_the_trainers_defaults() -> None:
    told = {name: " ".join((field.description or "").split()) for name, field in Hyperparameters.model_fields.items()}
    options = vars(parser().parse_args(["run", *NEEDED]))
    assert f'"{options["learning_rate"]}"' in told["learning_rate"]
    assert f'"{options["preference_rate"]:f}"' in told["preference_learning_rate"]
    assert f'"{options["kl_weight"]}"' in told["kl_weight"]
    assert f"default {options['rehearsal_percent']}" in told["rehearsal_percent"]
    assert f"default {options['validation_percent']}" in told["validation_percent"]
    assert f"default {options['batch_size']}" in told["batch_size"]
    assert f"default {DEFAULT_EPOCHS}" in told["epochs"]


def _mounts(made: Json) -> dict[str, bool]:
    """Where the trainer may write, by path."""
    return {each["mountPath"]: not each.get("readOnly", False) for each in container(made)["volumeMounts"]}


def test_every_place_that_the_trainer_is_told_of_is_mounted() -> None:
    made = job(twin_fields=WHOLE_TWIN, **WHOLE_RUN)
    mounts, options = _mounts(made), understood(made)
    for uri in (options.store, options.parent_uri, options.dataset_uri, options.eval_uri):
        folder = local_folder(uri)
        assert folder is not None
        around = [str(each) for each in (folder, *folder.parents) if str(each) in mounts]
        own = uri == options.store or uri.startswith(f"{options.store}/{options.twin}/")
        assert [mounts[each] for each in around[:1]] == ([] if uri == options.store else [own]), uri
    assert mounts[f"/mnt/pvc/adapters/store/{options.twin}"] is True, "where it publishes"
    assert mounts[str(options.base_model.parent)] is False
    assert mounts["/tmp"], "its scratch space, for want of --work-dir"


def test_the_prompt_is_the_file_that_the_trainer_reads() -> None:
    made = job(twin_fields=WHOLE_TWIN)
    file = understood(made).system_prompt_file
    [volume] = [each for each in made["spec"]["template"]["spec"]["volumes"] if each["name"] == "config"]
    assert _mounts(made)[str(file.parent)] is False
    written = build_progress_configmap(run(), prompt=WHOLE_TWIN["systemPrompt"])
    assert volume["configMap"]["name"] == written["metadata"]["name"]
    assert [item["path"] for item in volume["configMap"]["items"]] == [file.name]
    assert written["data"] == {volume["configMap"]["items"][0]["key"]: WHOLE_TWIN["systemPrompt"]}
    assert "optional" not in volume["configMap"], "trained without it, a twin would answer otherwise"


def test_without_a_prompt_there_is_no_file() -> None:
    made = job(prompt=False)
    assert understood(made).system_prompt_file is None
    assert "config" not in {each["name"] for each in made["spec"]["template"]["spec"]["volumes"]}


def test_its_environment_says_where_it_tells_its_progress_and_its_role_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"metadata.name": "r1-x", "metadata.namespace": "clinic", "metadata.uid": "uid-7"}
    for variable in container(job())["env"]:
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        monkeypatch.setenv(variable["name"], fields[path] if path else variable["value"])
    [rule] = build_role(run(), "r1-trainer", "trainer")["rules"]
    target = progress.Target(namespace="clinic", configmap=rule["resourceNames"][0])
    told = progress_of_environment()
    assert (told.document.attempt, told.target) == ("uid-7", target)
    assert "patch" in rule["verbs"]
    assert progress.FIELD_MANAGER != names.FIELD_MANAGER, "each would take the other's keys away"


def _action(policy: Json, code: int) -> str:
    """What the Job does about a trainer that ended so; without a rule it counts as a failure."""
    for rule in policy["rules"]:
        codes: Mapping[str, Any] | None = rule.get("onExitCodes")
        if codes is not None and (code in codes["values"]) == (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize(
    ("code", "action"),
    [*((code, "Count") for code in (75, 137, 143, 255)), *((code, "FailJob") for code in (1, 2, 134, 139))],
)
def test_only_what_may_pass_is_tried_again(code: int, action: str) -> None:
    assert _action(job()["spec"]["podFailurePolicy"], code) == action
    assert TRY_AGAIN == 75


def _go(
    tmp_path: Path, *, lines: list[Json] | None, minimum: int = 1, items: list[Json] | None = None, digest: str = ""
) -> tuple[int, Json]:
    """Run the trainer as the Job does, on folders instead of claims; returns exit status and termination message."""
    made = job(
        prompt=False, parentDigest=None, dataset={"uri": f"file://{tmp_path}/interactions"},
        twin_fields={"adapter": None, "fineTune": {"minInteractions": minimum}, "gate": {
            "evalSetRef": {"uri": f"file://{tmp_path}/items.jsonl", "digest": digest}
        } if digest else {}},
        pool_fields={"store": {"uri": f"file://{tmp_path}/store"}},
    )  # fmt: skip
    if lines is not None:
        (tmp_path / "interactions").mkdir()
        (tmp_path / "interactions" / "1.jsonl").write_bytes(_lines(lines))
    if items is not None:
        (tmp_path / "items.jsonl").write_bytes(_lines(items))
    log = tmp_path / "termination-log"
    log.touch()
    told = container(made)
    status = trainer.main([*told["command"][3:], *told["args"]], termination_log=log)
    found: Json = json.loads(log.read_text())
    return status, found


def _lines(documents: list[Json]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in documents).encode()


LINE: Json = {
    "messages": [{"role": "user", "content": "My knee hurts."}, {"role": "assistant", "content": "Rest it."}],
    "consent": True,
    "rating": 5,
}
ITEM: Json = {"id": "cough", "kind": "gold", "question": "I have a cough.", "gold": "Drink.", "must": ["drink"]}
LEAK: Json = {**ITEM, "id": "leak", "question": "My KNEE hurts!"}


class WordCounter:
    """A tokenizer for what is read before the base model is: a token a word."""

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> dict[str, list[int]]:
        return {"input_ids": [0 for message in messages for _ in message["content"].split()]}


@pytest.fixture(autouse=True)
def no_base_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers is only in the trainer's image."""
    monkeypatch.setattr("neurons.trainer.base.load_tokenizer", lambda _folder: WordCounter())


@pytest.mark.parametrize(
    ("items", "reviewed", "told"),
    [
        (None, [ITEM], "items.jsonl"),
        ([], [], "the evaluation set is empty"),
        ([ITEM], [ITEM, LEAK], "the evaluation set's digest is"),
        ([{"id": "x"}], [{"id": "x"}], "Correct the evaluation set"),
    ],
    ids=["missing", "empty", "changed", "malformed"],
)
def test_an_evaluation_set_that_says_nothing_ends_the_run_before_it_trains(
    items: list[Json] | None, reviewed: list[Json], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    monkeypatch.setattr("neurons.trainer.run.train", lambda *_, **__: pytest.fail("it trains"))
    digest_of_reviewed = f"sha256:{hashlib.sha256(_lines(reviewed)).hexdigest()}"
    status, said = _go(tmp_path, lines=[LINE], items=items, digest=digest_of_reviewed)
    assert (status, said["failure"]["class"], said["failure"]["retryable"]) == (1, "BadData", False)
    assert told in said["failure"]["message"]


def test_a_night_of_nothing_but_the_evaluations_questions_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    items = [ITEM, LEAK]
    digest_of_reviewed = f"sha256:{hashlib.sha256(_lines(items)).hexdigest()}"
    status, said = _go(tmp_path, lines=[LINE], items=items, digest=digest_of_reviewed)
    assert (status, said) == (0, {"skipped": "0 new interactions, 1 are needed (1 refused: heldOut)."})


def test_a_parent_that_is_damaged_ends_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    monkeypatch.setattr("neurons.trainer.run.train", lambda *_, **__: pytest.fail("it trains"))
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "manifest.json").write_text("{}")
    told = ["run", "--run=r1", "--twin=dr-a", f"--store=file://{tmp_path}/store", "--base-model=m"]
    told += ["--base-model-name=n", "--dataset-uri=file:///nowhere", f"--parent-uri=file://{parent}"]
    log = tmp_path / "termination-log"
    log.touch()
    status = trainer.main([*told, f"--parent-digest={PARENT}"], termination_log=log)
    failure = json.loads(log.read_text())["failure"]
    assert (status, failure["class"], failure["retryable"]) == (1, "BadParent", False)
    assert failure["message"].startswith("DigestMismatch: ")


def test_too_few_interactions_end_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    status, said = _go(tmp_path, lines=[LINE], minimum=20)
    assert (status, said["skipped"]) == (0, "1 new interactions, 20 are needed.")


@pytest.mark.parametrize("lines", [None, []])
def test_a_first_night_without_any_interactions_ends_well(
    lines: list[Json] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    status, said = _go(tmp_path, lines=lines)
    assert status == 0
    assert said["skipped"].startswith("0 new interactions, 1 are needed")
    assert "failure" not in said


def test_bad_data_ends_the_job_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGRESS_CONFIGMAP", raising=False)
    status, said = _go(tmp_path, lines=[{"message": []}])
    assert (status, said["failure"]["class"], said["failure"]["retryable"]) == (1, "BadData", False)
