"""Building blocks of the API types: the base model, common Kubernetes types, and CEL rules."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


def cel(
    rule: str,
    message: str,
    *,
    field_path: str | None = None,
    reason: str | None = None,
    optional_old_self: bool = False,
) -> dict[str, str | bool]:
    """Return one `x-kubernetes-validations` entry. `message` is read by a person: it says what to do.

    With `optional_old_self` the rule is checked at creation too, where `oldSelf` has no value.
    """
    entry: dict[str, str | bool] = {"rule": rule, "message": message}
    if field_path is not None:
        entry["fieldPath"] = field_path
    if reason is not None:
        entry["reason"] = reason
    if optional_old_self:
        entry["optionalOldSelf"] = True
    return entry


def rules(*entries: dict[str, str | bool], **extra: Any) -> dict[str, Any]:
    """Return the JSON schema extension that carries CEL rules."""
    return {"x-kubernetes-validations": list(entries), **extra}


class ApiModel(BaseModel):
    """A part of a custom resource: camelCase outside, snake_case inside, descriptions from attribute docstrings.

    Unknown fields are ignored when reading (the API server prunes them), so that an older operator can read objects
    written for a newer one.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        frozen=True,
        extra="ignore",
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: camelCase keys, and what is None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        """Return canonical JSON in UTF-8 as it is: the same document gives the same bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


Str63 = Annotated[str, Field(min_length=1, max_length=63)]
Str253 = Annotated[str, Field(min_length=1, max_length=253)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
DnsName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", min_length=1, max_length=253),
]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", min_length=1, max_length=128)]
Uid = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", min_length=1, max_length=64)]
Percent = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[int, Field(ge=1, le=86400)]
LearningRate = Annotated[str, Field(pattern=r"^0\.[0-9]*[1-9][0-9]*$", max_length=16)]
"""Above 0 and below 1, as a decimal string: the API has no floats."""
Weight = Annotated[str, Field(pattern=r"^(10|[0-9](\.[0-9]+)?)$", max_length=16)]
"""From 0 to 10, as a decimal string."""


def _reckonable(text: str) -> str:
    """A time that can be compared and added to; the API server takes leap seconds and the years 0 and 9999 too."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 1900 <= moment.year <= 2900:
        raise ValueError("a time needs its offset from UTC, and a year from 1900 to 2900")
    return text


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=64), AfterValidator(_reckonable)]
"""RFC 3339."""

Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][0-9]+)?$",
            "maxLength": 64,
        }
    ),
]
LabelValue = Annotated[str, Field(max_length=63)]


class SecretRef(ApiModel):
    """A Secret in the same namespace."""

    name: DnsName
    """Name of the Secret."""


class LabelSelectorRequirement(ApiModel):
    """One requirement on a label."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to `values`."""
    values: Annotated[list[LabelValue] | None, Field(max_length=64)] = None
    """Values, for In and NotIn."""


class LabelSelector(ApiModel):
    """Selects objects by their labels; an empty selector selects all."""

    match_labels: Annotated[dict[str, LabelValue] | None, Field(max_length=16)] = None
    """Labels that must all be present with these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement] | None, Field(max_length=16)] = None
    """Requirements that must all hold."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether an object with these labels is selected."""
        if any(labels.get(k) != v for k, v in (self.match_labels or {}).items()):
            return False
        for requirement in self.match_expressions or []:
            present, value = requirement.key in labels, labels.get(requirement.key)
            values = requirement.values or []
            ok = {
                "In": present and value in values,
                "NotIn": not present or value not in values,
                "Exists": present,
                "DoesNotExist": not present,
            }[requirement.operator]
            if not ok:
                return False
        return True


class Condition(ApiModel):
    """One aspect of the object's state, as of `lastTransitionTime`."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Name of the condition."""
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]}, max_length=7)]
    """True, False or Unknown."""
    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation this condition speaks of."""
    last_transition_time: Time
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, as one CamelCase word that programs may rely on."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, as a sentence for a person: what happened and what to do."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class Toleration(ApiModel):
    """Lets the pool's pods run on nodes with a matching taint."""

    key: Annotated[str | None, Field(max_length=317)] = None
    """Taint key; absent with operator Exists tolerates every taint."""
    operator: Annotated[str | None, Field(json_schema_extra={"enum": ["Exists", "Equal"]}, max_length=6)] = None
    """Exists or Equal (the default)."""
    value: Annotated[str | None, Field(max_length=63)] = None
    """Taint value, for Equal."""
    effect: Annotated[
        str | None,
        Field(json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}, max_length=16),
    ] = None
    """Taint effect; absent means all effects."""
    toleration_seconds: Annotated[int | None, Field(ge=0)] = None
    """For NoExecute: how long to stay."""


class Resources(ApiModel):
    """Compute resources of one container, as in a Pod."""

    requests: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What is reserved, for example {"cpu": "4", "memory": "24Gi", "nvidia.com/gpu": 1}."""
    limits: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What is allowed at most; nvidia.com/gpu must equal its request."""


def condition_path(kind: str, field: str = "status") -> str:
    """Return the JSONPath of a condition's field, for a printer column."""
    return f'.status.conditions[?(@.type=="{kind}")].{field}'
