"""All children of a validator, in the order in which they are applied."""

from __future__ import annotations

from twin_operator.domain.answering import Answering
from twin_operator.domain.objects import Validator
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.validator.datasets_cronjob import build_datasets_cronjob
from twin_operator.kinds.validator.gateway_deployment import build_gateway_deployment
from twin_operator.kinds.validator.ledger_job import build_ledger_job
from twin_operator.kinds.validator.network_policy import (
    build_datasets_network_policy,
    build_gateway_network_policy,
    build_ledger_network_policy,
    build_rounds_network_policy,
)
from twin_operator.kinds.validator.pod_disruption_budget import build_budget
from twin_operator.kinds.validator.role import build_role, build_rounds_role
from twin_operator.kinds.validator.role_binding import build_role_binding, build_rounds_role_binding
from twin_operator.kinds.validator.rounds_cronjob import build_rounds_cronjob
from twin_operator.kinds.validator.service import build_service
from twin_operator.kinds.validator.service_account import (
    build_datasets_service_account,
    build_rounds_service_account,
    build_service_account,
)
from twin_operator.kinds.validator.twins_configmap import build_twins_configmap
from twin_operator.settings import Images


def build_children(validator: Validator, images: Images, *, answering: Answering) -> tuple[Manifest, ...]:
    """Return the children; pods last, when all they need is there."""
    manifests = (
        build_service_account(validator),
        build_datasets_service_account(validator),
        build_rounds_service_account(validator),
        build_role(validator),
        build_rounds_role(validator),
        build_role_binding(validator),
        build_rounds_role_binding(validator),
        build_gateway_network_policy(validator),
        build_ledger_network_policy(validator),
        build_datasets_network_policy(validator),
        build_rounds_network_policy(validator),
        build_service(validator),
        build_budget(validator),
        build_twins_configmap(validator, answering),
        build_ledger_job(validator, images),
        build_gateway_deployment(validator, images),
        build_datasets_cronjob(validator, images),
        build_rounds_cronjob(validator, images),
    )
    return tuple(each for each in manifests if each is not None)
