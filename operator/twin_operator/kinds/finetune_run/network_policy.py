"""NetworkPolicy R-examiner: nobody opens a connection to an examiner.

Its own connections are left open, as those of engines are: store, model, API server and judge may be anywhere.
"""

from __future__ import annotations

from bettertherapy_api import names
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import NETWORK_POLICY, Manifest
from twin_operator.kinds.finetune_run.labels import labels


def build_examiner_network_policy(run: Run) -> Manifest:
    """Return the policy of the run's examiner."""
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": {"name": names.examiner_name(run.name), "labels": labels(run, "examiner")},
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_RUN: run.name, names.LABEL_COMPONENT: "examiner"}},
            "policyTypes": ["Ingress"],
            "ingress": [],
        },
    }
