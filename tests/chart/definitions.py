"""CustomResourceDefinitions of other projects, out of their Go modules, pinned by version and hash."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

MODULES = {
    "sigs.k8s.io/gateway-api": ("v1.4.0", "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ="),
    "github.com/fluxcd/helm-controller": ("v1.4.0", "h1:rkm8rmB6Na7eNc4pJOnvtXEaJ19iKluRtayHKjBxcUM="),
    "github.com/fluxcd/source-controller": ("v1.7.0", "h1:/fBgS4CSmT5Jj/fjQDF92y+pC3gst1GJjgNSzY8Ff9I="),
    "github.com/argoproj/argo-cd/v3": ("v3.1.8", "h1:NkLPiRI5qGkV+q1EN3O7/0Wb9O/MVl62vadKteZqMUw="),
}


@cache
def folder(module: str) -> Path:
    """Return the folder of one of MODULES, fetched by Go's own client if it isn't there."""
    version, digest = MODULES[module]
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            ["go", "mod", "download", "-json", f"{module}@{version}"],
            cwd=empty, env={**os.environ, "GOFLAGS": "-mod=mod"},
            capture_output=True, text=True, timeout=110, check=True,
        )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["Sum"] == digest, f"{module} {version} is not what it was"
    return Path(found["Dir"])
