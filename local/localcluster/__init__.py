"""A real Kubernetes on one machine: every component in namespaces of its own, so that nothing stays when it goes.

from localcluster import Cluster

cluster = Cluster("test")
cluster.up()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcluster.cluster import Cluster
    from localcluster.errors import LocalClusterError

__all__ = ["Cluster", "LocalClusterError"]


def __getattr__(name: str) -> Any:
    # The processes inside the namespaces import this package too; they stay small by not loading all of it.
    if name == "Cluster":
        from localcluster.cluster import Cluster  # noqa: PLC0415

        return Cluster
    if name == "LocalClusterError":
        from localcluster.errors import LocalClusterError  # noqa: PLC0415

        return LocalClusterError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
