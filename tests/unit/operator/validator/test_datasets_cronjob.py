"""CronJob V-datasets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import FineTune
from neurons.ledger.__main__ import _parser
from tests.unit.operator.children.pods import computing
from tests.unit.operator.validator.validators import POSTGRES, S3_TASKS, TASKS, children
from twin_operator.domain.schedule import schedule_of


def cronjob(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = children(**spec)["CronJob", "v-datasets"]["spec"]
    return found


def pod(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = cronjob(**spec)["jobTemplate"]["spec"]["template"]["spec"]
    return found


def container(**spec: Any) -> dict[str, Any]:
    [found] = pod(**spec)["containers"]
    made: dict[str, Any] = found
    return made


def volumes(**spec: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in pod(**spec)["volumes"]}


def test_nothing_leaves_the_ledger_unless_that_is_asked_for() -> None:
    assert not [key for key in children() if key[0] == "CronJob" or key[1] == "v-datasets"]


def test_the_command_is_one_that_the_ledger_knows() -> None:
    made = container(**TASKS)
    assert made["command"][:3] == ["python", "-m", "neurons.ledger"]
    given = _parser().parse_args([*made["command"][3:], *made["args"]])
    assert (given.run.__name__, given.store, given.zone) == ("_datasets", "pvc://adapters/clinic", "Asia/Kathmandu")
    mounts = {mount["mountPath"]: mount["name"] for mount in made["volumeMounts"]}
    assert str(given.twins_file) == f"{names.TWINS_DIR}/{names.TWINS_FILE}"
    assert volumes(**TASKS)[mounts[names.TWINS_DIR]]["configMap"]["name"] == "v-gateway-twins"


def test_by_default_it_comes_between_the_days_end_and_the_twins_fine_tunes() -> None:
    spec = cronjob(**TASKS)
    own = FineTune.model_validate({"schedule": spec["schedule"], "timeZone": spec["timeZone"]})
    theirs = FineTune.model_validate({"timeZone": spec["timeZone"]})
    midnight = datetime(2026, 11, 28, 18, 15, tzinfo=UTC)  # of Kathmandu
    first, then = (
        schedule_of(each, namespace="clinic", twin="dr-a", window_seconds=1).after(midnight) for each in (own, theirs)
    )
    assert midnight < first < then
    assert (then - midnight).total_seconds() < 24 * 3600


def test_one_at_a_time_bounded_and_with_last_words() -> None:
    spec = cronjob(**TASKS)
    job = spec["jobTemplate"]["spec"]
    assert (spec["concurrencyPolicy"], spec["suspend"]) == ("Forbid", False)
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (1, 1)
    assert 0 < job["backoffLimit"] < 10
    assert job["activeDeadlineSeconds"] == 3600
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert container(**TASKS)["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert cronjob(fineTuneTasks={**TASKS["fineTuneTasks"], "suspend": True})["suspend"] is True


def test_jobs_and_pods_are_found_by_their_labels() -> None:
    template = cronjob(**TASKS)["jobTemplate"]
    for labels in (template["metadata"]["labels"], template["spec"]["template"]["metadata"]["labels"]):
        assert labels[names.LABEL_VALIDATOR] == "v"
        assert labels[names.LABEL_COMPONENT] == "datasets"


def test_the_account_has_no_rights_and_the_pod_no_hotkey_no_keys_and_no_token() -> None:
    made = children(**TASKS)
    account = made["ServiceAccount", pod(**TASKS)["serviceAccountName"]]
    assert (account["metadata"]["name"], account["automountServiceAccountToken"]) == ("v-datasets", False)
    subjects = [each for child in made.values() for each in child.get("subjects", ())]
    assert [each["name"] for each in subjects] == ["v-gateway"]
    for spec in (TASKS, {**POSTGRES, **S3_TASKS}):
        assert pod(**spec)["automountServiceAccountToken"] is False
        assert not {"wallet", "keys", "sessions", "api-token"} & volumes(**spec).keys()


def test_the_stores_credentials_come_as_the_trainer_has_them() -> None:
    assert "envFrom" not in container(**TASKS)
    assert container(**S3_TASKS)["envFrom"] == [{"secretRef": {"name": "s3"}}]
    claim = volumes(**TASKS)["claim-0"]["persistentVolumeClaim"]
    assert claim == {"claimName": "adapters"}  # writable
    [mounted] = [mount for mount in container(**TASKS)["volumeMounts"] if mount["name"] == "claim-0"]
    assert (mounted["mountPath"], mounted.get("readOnly", False)) == (f"{names.PVC_DIR}/adapters", False)


def test_an_embedded_ledger_is_opened_beside_its_gateway() -> None:
    made, gateway = children(**TASKS), children(**TASKS)["Deployment", "v-gateway"]
    address = {each["name"]: each.get("value") for each in container(**TASKS)["env"]}["LEDGER_URL"]
    [theirs] = gateway["spec"]["template"]["spec"]["containers"]
    assert address == {each["name"]: each.get("value") for each in theirs["env"]}["LEDGER_URL"]
    assert volumes(**TASKS)["state"]["persistentVolumeClaim"] == {"claimName": "v-gateway-state"}
    [term] = pod(**TASKS)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    [either] = term["labelSelector"]["matchExpressions"]
    own = made["CronJob", "v-datasets"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    for labels in (gateway["spec"]["template"]["metadata"]["labels"], own):  # itself: with no gateway it may run
        assert term["labelSelector"]["matchLabels"].items() <= labels.items()
        assert labels[either["key"]] in either["values"]


def test_with_a_database_it_runs_anywhere_and_has_its_address_from_the_secret() -> None:
    spec = {**POSTGRES, **S3_TASKS}
    assert "affinity" not in pod(**spec)
    assert "state" not in volumes(**spec)
    [address] = [each for each in container(**spec)["env"] if each["name"] == "LEDGER_URL"]
    assert address["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "uri"}


def test_its_resources_are_the_specs() -> None:
    given = {"limits": {"memory": "4Gi"}}
    assert computing(container(fineTuneTasks={**TASKS["fineTuneTasks"], "resources": given})) == given
