"""What may be added to the pods that the operator makes: where they run, variables, volumes, labels.

A closed list of typed fields and not a pod template: whatever could undo what the operator promises (its mounts, its
variables, its labels, the nodes' own files) can't be said, or is refused at admission in words.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from bettertherapy_api import names
from bettertherapy_api.schema import ApiModel, DnsLabel, DnsName, LabelSelector, LabelValue, cel, rules

OWNED_PATHS: Final = (
    "/adapters", "/app", "/bin", "/cache", "/dev", "/etc/bettertherapy", "/home", "/lib", "/lib32", "/lib64", "/models",
    "/mnt/headers", "/mnt/pvc", "/opt", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr",  # noqa: S108
    "/var/lib/bettertherapy", "/var/run",
)  # fmt: skip
"""Folders in the pods that are the operator's, the image's programs' or the kernel's: nothing may be mounted on, in or
above them. What replaced a program would run with the pod's rights, such as the examiner's to say what a version is
worth."""
OWNED_VARIABLES: Final = (
    "HOME", "POOL", "POD_.*", "HF_HUB_OFFLINE", "PROGRESS_CONFIGMAP", "DRAIN_SECONDS", "ENGINE_ENDPOINT.*",
    "BASE_MODEL_DIR", "STORE_URI", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TORCHDYNAMO_DISABLE", "VLLM_HOST_IP",
    "VLLM_PORT", "VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_NO_USAGE_STATS", "VLLM_PLUGINS",
    "VLLM_LORA_.*", "LEDGER_URL", "PATH", "PYTHON.*", "LD_.*", "GCONV_PATH", "BASH_ENV", "ENV", "VLLM_ALLOW_.*",
    "VLLM_CONFIGURE_LOGGING", "VLLM_DEBUG_.*", "VLLM_LOGGING_.*", "VLLM_SERVER_DEV_MODE", "VLLM_TRACE_.*",
    "TORCHINDUCTOR_.*", "TRITON_.*", "OTEL_.*",
)  # fmt: skip
"""Variables that the operator sets, that would open another way to the engine or to weights, or by which other code is
run or what is asked is written down (as patterns)."""
OWNED_LABELS: Final = (f"{names.GROUP}/", "app.kubernetes.io/", "batch.kubernetes.io/", "pod-template-hash")
"""Beginnings of labels by which pods are found, policies are bound, and controllers know their own."""
OWNED_ANNOTATIONS: Final = (f"{names.GROUP}/", "kubectl.kubernetes.io/")

_PATHS = "[" + ", ".join(f"'{path}'" for path in OWNED_PATHS) + "]"


def _none_begins_with(prefixes: tuple[str, ...]) -> str:
    return "self.all(k, " + " && ".join(f"!k.startsWith('{prefix}')" for prefix in prefixes) + ")"


class KeyRef(ApiModel):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: DnsName
    """Name of the object."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._A-Za-z0-9]+$")]
    """Its key."""


class ValueFrom(ApiModel):
    """Where a variable's value is taken from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "set either secretKeyRef or configMapKeyRef",
            )
        )
    )
    secret_key_ref: KeyRef | None = None
    """A Secret's key, such as HF_TOKEN."""
    config_map_key_ref: KeyRef | None = None
    """A ConfigMap's key."""


class EnvVar(ApiModel):
    """One environment variable."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("has(self.value) != has(self.valueFrom)", "set either value or valueFrom"),
        )
    )
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            json_schema_extra=rules(
                cel(
                    "!self.matches('^(" + "|".join(OWNED_VARIABLES) + ")$')",
                    "the operator sets this variable itself, or it would open another way to the engine: remove it",
                )
            ),
        ),
    ]
    """Its name."""
    value: Annotated[str | None, Field(max_length=4096)] = None
    """Its value; what is secret belongs into valueFrom."""
    value_from: ValueFrom | None = None
    """Where its value is taken from."""


class EmptyDir(ApiModel):
    """Scratch space that goes with the pod."""

    medium: Literal["Memory"] | None = None
    """Memory: RAM instead of the node's disk."""
    size_limit: Annotated[str | None, Field(max_length=32, pattern=r"^[0-9]+([KMGTPE]i?)?$")] = None
    """Most it may hold."""


class ExtraVolume(ApiModel):
    """One more volume, mounted into the container that computes and the one that fetches the base model.

    Folders of the node can't be named: which of them a pod may use is for the cluster's administrators to say.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "[has(self.claimName), has(self.secretName), has(self.configMapName), has(self.emptyDir)]"
                ".filter(x, x).size() == 1",
                "set exactly one of claimName, secretName, configMapName and emptyDir",
            ),
        )
    )
    name: Annotated[DnsLabel, Field(max_length=48)]
    """Name of the volume among the extra ones."""
    mount_path: Annotated[
        str,
        Field(
            min_length=2,
            max_length=256,
            pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$",
            json_schema_extra=rules(
                cel(
                    f"{_PATHS}.all(p, self != p && !self.startsWith(p + '/') && !p.startsWith(self + '/'))",
                    "mountPath is on, in or above a folder that the operator or the kernel owns ("
                    + ", ".join(OWNED_PATHS)
                    + "): choose another, such as /data/NAME",
                )
            ),
        ),
    ]
    """Where it is mounted, an absolute path."""
    read_only: bool = True
    """False lets the container write; Secrets and ConfigMaps are read-only always."""
    claim_name: DnsName | None = None
    """PersistentVolumeClaim."""
    secret_name: DnsName | None = None
    """Secret: each key becomes a file."""
    config_map_name: DnsName | None = None
    """ConfigMap: each key becomes a file."""
    empty_dir: EmptyDir | None = None
    """Scratch space."""


class NodeRequirement(ApiModel):
    """One requirement on a node's label."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the label's value relates to `values`."""
    values: Annotated[list[LabelValue] | None, Field(max_length=64)] = None
    """Values, for In and NotIn; one integer for Gt and Lt."""


class NodeTerm(ApiModel):
    """Requirements that must all hold for a node."""

    match_expressions: Annotated[list[NodeRequirement], Field(min_length=1, max_length=16)]
    """The requirements."""


class NodeSelector(ApiModel):
    """Nodes for which any of the terms holds."""

    node_selector_terms: Annotated[list[NodeTerm], Field(min_length=1, max_length=8)]
    """The terms."""


class PreferredNodes(ApiModel):
    """Nodes that are better than others."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """How much better."""
    preference: NodeTerm
    """Which nodes."""


class NodeAffinity(ApiModel):
    """Nodes that pods must or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """They must."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[PreferredNodes] | None, Field(max_length=8)
    ] = None
    """They should."""


class PodTerm(ApiModel):
    """Places where pods of the same namespace with these labels run."""

    topology_key: Annotated[str, Field(min_length=1, max_length=317)]
    """Node label whose value tells places apart, such as kubernetes.io/hostname or topology.kubernetes.io/zone."""
    label_selector: LabelSelector | None = None
    """The pods; absent means this pool's engines, its miners, or the trainers of the namespace."""


class PreferredPods(ApiModel):
    """Places that are better than others."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """How much better."""
    pod_affinity_term: PodTerm
    """Which places."""


class PodAffinity(ApiModel):
    """Pods beside which (or away from which) pods must or should run."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodTerm] | None, Field(max_length=8)] = None
    """They must."""
    preferred_during_scheduling_ignored_during_execution: Annotated[list[PreferredPods] | None, Field(max_length=8)] = (
        None
    )
    """They should."""


class Affinity(ApiModel):
    """Where pods run, relative to nodes and to other pods; the fields are those of a Pod."""

    node_affinity: NodeAffinity | None = None
    """Nodes to run on."""
    pod_affinity: PodAffinity | None = None
    """Pods to run beside."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods to keep away from."""


class SpreadConstraint(ApiModel):
    """How evenly pods are spread over places."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = 1
    """By how many pods places may differ."""
    topology_key: Annotated[str, Field(min_length=1, max_length=317)]
    """Node label whose value tells places apart."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """What happens to a pod for which it can't be kept."""
    label_selector: LabelSelector | None = None
    """The pods that are counted; absent means this pool's engines, its miners, or all trainers."""


class PodOverlay(ApiModel):
    """What is added to the pods."""

    labels: Annotated[
        dict[str, LabelValue] | None,
        Field(
            max_length=16,
            json_schema_extra=rules(
                cel(
                    _none_begins_with(OWNED_LABELS),
                    "labels that begin with " + ", ".join(OWNED_LABELS) + " are the operator's: remove them",
                )
            ),
        ),
    ] = None
    """More labels of the pods."""
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=2048)]] | None,
        Field(
            max_length=16,
            json_schema_extra=rules(
                cel(
                    _none_begins_with(OWNED_ANNOTATIONS),
                    "annotations that begin with " + ", ".join(OWNED_ANNOTATIONS) + " are the operator's: remove them",
                )
            ),
        ),
    ] = None
    """Annotations of the pods."""
    affinity: Affinity | None = None
    """Where the pods run, relative to nodes and other pods."""
    topology_spread_constraints: Annotated[list[SpreadConstraint] | None, Field(max_length=8)] = None
    """How evenly the pods are spread."""
    env: Annotated[
        list[EnvVar] | None,
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    """More environment variables, such as HF_TOKEN from a Secret."""
    volumes: Annotated[
        list[ExtraVolume] | None,
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **rules(
                    cel(
                        "self.all(v, self.exists_one(w, w.mountPath == v.mountPath))",
                        "two volumes have the same mountPath: give each its own",
                    )
                ),
            },
        ),
    ] = None
    """More volumes, each with its place."""


class ServingPodOverlay(PodOverlay):
    """What is added to pods that serve."""

    priority_class_name: DnsName | None = None
    """PriorityClass of the pods: which go first where the cluster is full."""
