"""Our own resource types, and which types the operator watches and writes."""

from __future__ import annotations

from typing import Final

from bettertherapy_api import names
from twin_operator.engine.resources import (
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    EVENT,
    JOB,
    LEADER_WORKER_SET,
    LEASE,
    NETWORK_POLICY,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Resource,
)

DOCTOR_TWIN: Final = Resource(names.GROUP, names.VERSION, "DoctorTwin", "doctortwins")
MINER_POOL: Final = Resource(names.GROUP, names.VERSION, "MinerPool", "minerpools")
FINE_TUNE_RUN: Final = Resource(names.GROUP, names.VERSION, "FineTuneRun", "finetuneruns")
VALIDATOR: Final = Resource(names.GROUP, names.VERSION, "Validator", "validators")
VALIDATOR_ROUND: Final = Resource(names.GROUP, names.VERSION, "ValidatorRound", "validatorrounds")
ROUTING_SLICE: Final = Resource(names.GROUP, names.VERSION, "RoutingSlice", "routingslices")
POD_REPORT: Final = Resource(names.GROUP, names.VERSION, "PodReport", "podreports")

PRIMARY: Final = (DOCTOR_TWIN, MINER_POOL, FINE_TUNE_RUN, VALIDATOR, VALIDATOR_ROUND)
CHILDREN: Final = (
    SERVICE_ACCOUNT, ROLE, ROLE_BINDING, CONFIG_MAP, SERVICE, NETWORK_POLICY, POD_DISRUPTION_BUDGET, DEPLOYMENT,
    JOB, CRON_JOB,
)  # fmt: skip
"""Types that pools, runs, validators and rounds own."""
OPTIONAL_CHILDREN: Final = (LEADER_WORKER_SET,)
"""Types that pools may own, and that a cluster may not have."""
MADE_ONCE: Final = (SECRET, PERSISTENT_VOLUME_CLAIM)
"""Types of which objects are made where there are none, and neither read nor changed."""
BY_KIND: Final = {
    resource.kind: resource
    for resource in (*PRIMARY, ROUTING_SLICE, POD_REPORT, *CHILDREN, *OPTIONAL_CHILDREN, *MADE_ONCE, POD, LEASE, EVENT)
}
