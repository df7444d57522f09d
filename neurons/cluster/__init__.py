"""The little of Kubernetes that the data plane needs: follow a pool's objects, own one.

async with ClusterClient() as client:  # a pod's service account, or the kubeconfig named by KUBECONFIG
    view = RoutingView(pool)
    watch = ObjectWatch(client, path=paths.routing_slices(namespace), labels=paths.routing_labels(pool))
    async for event in watch:
        change = view.take(event)
    await PodReportWriter(client, namespace=namespace, labels=paths.report_labels(pool)).write(report)
"""

from neurons.cluster.access import Access, ClusterAccessError, KubeconfigAccess, ServiceAccountAccess
from neurons.cluster.backoff import Backoff
from neurons.cluster.client import ClusterClient, ClusterError
from neurons.cluster.folder_watch import FolderWatch
from neurons.cluster.object_watch import Event, Gone, Listed, ObjectWatch, Put
from neurons.cluster.pod_report import PodReportWriter
from neurons.cluster.routing_view import Change, RoutingView
from neurons.cluster.turns import Steps, at_once, in_turns

__all__ = [
    "Access",
    "Backoff",
    "Change",
    "ClusterAccessError",
    "ClusterClient",
    "ClusterError",
    "Event",
    "FolderWatch",
    "Gone",
    "KubeconfigAccess",
    "Listed",
    "ObjectWatch",
    "PodReportWriter",
    "Put",
    "RoutingView",
    "ServiceAccountAccess",
    "Steps",
    "at_once",
    "in_turns",
]
