"""Who may read metrics, as NetworkPolicies name them: the one form for whatever has metrics."""

from __future__ import annotations

from pydantic import ConfigDict

from bettertherapy_api.schema import ApiModel, LabelSelector, cel, rules


class MetricsPeer(ApiModel):
    """Pods that may read the metrics, as a NetworkPolicy's peer names them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "has(self.namespaceSelector) || has(self.podSelector)",
                "say who: set namespaceSelector, podSelector, or both; an empty selector, {}, means all",
            )
        )
    )
    namespace_selector: LabelSelector | None = None
    """Namespaces of the pods; absent means this one."""
    pod_selector: LabelSelector | None = None
    """The pods; absent means all of those namespaces."""
