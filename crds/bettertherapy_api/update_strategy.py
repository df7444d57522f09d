"""How a pool's engines are replaced when what they run changes, and when they may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from bettertherapy_api.schema import ApiModel, cel, rules

PodCount = Annotated[
    int | str,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            **rules(
                cel(
                    "type(self) == int ? self >= 0 && self <= 1000 : self.matches('^(100|[1-9]?[0-9])%$')",
                    "must be a number of pods or a percentage such as 25%",
                )
            ),
        }
    ),
]
_NO_SURGE = "has(self.maxSurge) && string(self.maxSurge) in ['0', '0%']"
_NONE_UNAVAILABLE = "(!has(self.maxUnavailable) || string(self.maxUnavailable) in ['0', '0%'])"


class MaintenanceWindow(ApiModel):
    """When engines may be replaced; outside of it a change waits."""

    schedule: Annotated[str, Field(min_length=9, max_length=64, pattern=r"^(\S+\s+){4}\S+$")]
    """Cron expression with five fields: when the window opens."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """IANA time zone of the schedule."""
    seconds: Annotated[int, Field(ge=60, le=604800)]
    """How long it stays open. A replacement that began in it is finished after it."""


class UpdateStrategy(ApiModel):
    """How engine pods are replaced when the engine, its arguments or its pod change."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.type != 'Recreate' || (!has(self.maxSurge) && !has(self.maxUnavailable))",
                "maxSurge and maxUnavailable belong to type RollingUpdate: remove them, or set type to RollingUpdate",
            ),
            cel(
                f"!({_NO_SURGE} && {_NONE_UNAVAILABLE})",
                "with maxSurge 0 and maxUnavailable 0 no pod could ever be replaced: set maxUnavailable to 1, "
                "or leave maxSurge out",
            ),
        )
    )
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    """RollingUpdate replaces pods bit by bit; Recreate ends all of them first, and nothing answers meanwhile."""
    max_surge: PodCount | None = None
    """Pods above `replicas` while pods are replaced, as a number or a percentage; absent means 1. Each needs a GPU."""
    max_unavailable: PodCount | None = None
    """Pods that may be missing while pods are replaced, as a number or a percentage; absent means 0."""
    maintenance_window: MaintenanceWindow | None = None
    """When pods may be replaced; absent means at any time."""
