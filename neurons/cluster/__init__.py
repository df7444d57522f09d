"""The little of Kubernetes that the data plane needs: follow one ConfigMap, own one key of another.

async with ClusterClient() as client:  # a pod's service account, or the kubeconfig named by KUBECONFIG
    async for data in ConfigMapWatch(client, namespace=namespace, name=names.routing_name(pool)):
        ...
    await apply_report_key(client, namespace=namespace, name=names.report_name(pool), pod=pod, value=json)
"""

from neurons.cluster.access import Access, ClusterAccessError, KubeconfigAccess, ServiceAccountAccess
from neurons.cluster.backoff import Backoff
from neurons.cluster.client import ClusterClient, ClusterError
from neurons.cluster.configmap_watch import ConfigMapWatch
from neurons.cluster.report_key import apply_report_key, field_manager

__all__ = [
    "Access",
    "Backoff",
    "ClusterAccessError",
    "ClusterClient",
    "ClusterError",
    "ConfigMapWatch",
    "KubeconfigAccess",
    "ServiceAccountAccess",
    "apply_report_key",
    "field_manager",
]
