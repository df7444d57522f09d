# ruff: noqa: S310, T201
"""What `helm test` runs: the operator is ready, and the API server serves its kinds. Arguments: the operator's URL."""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path

DEADLINE = time.monotonic() + 60
KINDS = {"DoctorTwin", "MinerPool"}
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def get(url, **kwargs):
    """Return the body; tries again until the deadline, then says what to look at."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, **kwargs) as answer:
                return answer.read()
        except OSError as error:
            if time.monotonic() > DEADLINE:
                sys.exit(f"FAILED {getattr(url, 'full_url', url)}: {error}; look at `kubectl logs` of the operator")
            time.sleep(1)


get(sys.argv[1] + "/readyz")
print("ok: the operator is ready")
host = os.environ["KUBERNETES_SERVICE_HOST"]
server = f"https://{'[' + host + ']' if ':' in host else host}:{os.environ['KUBERNETES_SERVICE_PORT']}"
request = urllib.request.Request(
    server + "/apis/bettertherapy.io/v1alpha1",
    headers={"Authorization": "Bearer " + (ACCOUNT / "token").read_text().strip()},
)
context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
served = {r["kind"] for r in json.loads(get(request, context=context))["resources"] if "/" not in r["name"]}
if missing := KINDS - served:
    sys.exit(f"FAILED the API server does not serve {sorted(missing)}: install the chart with crds.install=true")
print("ok: the API server serves " + ", ".join(sorted(served & KINDS)))
