"""A FineTuneRun as the operator makes one for a twin, whatever it is for: named, labelled, and gone with its twin."""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Twin
from twin_operator.engine.apply import Owner
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN


def run_of(twin: Twin, name: str, spec: Manifest) -> Manifest:
    """Return the run; `spec` is what it has beside its twin."""
    owner = Owner(
        api_version=DOCTOR_TWIN.api_version, kind=DOCTOR_TWIN.kind, namespace=twin.namespace, name=twin.name,
        uid=twin.uid,
    )  # fmt: skip
    return {
        "apiVersion": FINE_TUNE_RUN.api_version,
        "kind": FINE_TUNE_RUN.kind,
        "metadata": {
            "name": name,
            "namespace": twin.namespace,
            "labels": {names.LABEL_TWIN: twin.name, names.LABEL_MANAGED_BY: names.FIELD_MANAGER},
            "ownerReferences": [owner.reference()],
        },
        "spec": {"twinRef": {"name": twin.name}, **spec},
    }
