"""The certificates that this machine trusts, where its network signs TLS anew."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def own_authority(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Path | None:
    """Return the certificate bundle that the environment or pip's configuration names, or None where neither does.

    A build's installing steps read it as a secret mount, so that nothing of it stays in the image.
    """
    for name in _VARIABLES:
        if (bundle := environment.get(name)) and Path(bundle).is_file():
            return Path(bundle)
    home = home or Path.home()
    for file in (home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        cert = parser.get("global", "cert", fallback="")
        if cert and Path(cert).is_file():
            return Path(cert)
    return None
