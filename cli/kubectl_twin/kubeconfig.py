"""The kubeconfig, read as kubectl reads it, without a client library: that takes longer to import than to ask.

Ways to be known to the API server: client certificates, tokens, token files, name and password, credential plugins
(`exec`), the token of an `oidc` provider as long as it is valid, and acting as another (`as`). Others are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from kubectl_twin.errors import TwinCliError

Json = dict[str, Any]

_EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXEC_SECONDS: Final = 120.0
_SHOWN: Final = 8
"""Names of contexts that fit a sentence."""
_LISTS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_FILES: Final = frozenset({"certificate-authority", "client-certificate", "client-key", "tokenFile"})


class Reach(NamedTuple):
    """Which cluster is meant, and who asks."""

    kubeconfig: str | None = None
    context: str | None = None
    user: str | None = None
    """Whom to act as."""
    groups: tuple[str, ...] = ()


class Access(NamedTuple):
    """How to reach an API server, and what to show it."""

    server: str
    """Its URL, without a slash at the end."""
    namespace: str
    headers: Sequence[tuple[str, str]]
    """What tells the API server who asks."""
    tls: ssl.SSLContext | None
    """None for plain HTTP."""
    tls_name: str | None
    """The name that its certificate shows, where that isn't its host's."""
    proxy: str | None


def access(reach: Reach, environ: Mapping[str, str] = os.environ) -> Access:
    """Read the kubeconfig: the given one, else those of $KUBECONFIG together, else ~/.kube/config.

    Raises:
        TwinCliError: none, none of that name in it, or a way to log in that is not known here.
    """
    config = merged(_paths(reach.kubeconfig, environ), reach)
    name = reach.context or config.get("current-context") or ""
    if not name:
        raise _unusable("it has no current context", reach)
    context = _named(config, "contexts", name, reach)
    cluster = _named(config, "clusters", context.get("cluster") or "", reach)
    user = _named(config, "users", context["user"], reach) if context.get("user") else {}
    server = str(cluster.get("server") or "").rstrip("/")
    if urlsplit(server).scheme not in ("http", "https"):
        raise _unusable(f"cluster {context.get('cluster')} names no server", reach)
    user = user | _plugged(user, cluster, environ) if user.get("exec") else user
    proxy = cluster.get("proxy-url") or _proxy_of(server, environ)
    if proxy and urlsplit(proxy).scheme != "http":
        raise TwinCliError(f"The proxy {proxy} is of a kind that is not known here: only http:// is.")
    return Access(
        server=server,
        namespace=str(context.get("namespace") or "default"),
        headers=[*_identity(user), *_impersonation(user, reach)],
        tls=_tls(cluster, user) if server.startswith("https:") else None,
        tls_name=cluster.get("tls-server-name") or None,
        proxy=proxy or None,
    )


def merged(paths: Sequence[str], reach: Reach) -> Json:
    """Return several kubeconfigs as one: of what is named twice the first counts, as with kubectl.

    Raises:
        TwinCliError: none of them exists, or one is no kubeconfig.
    """
    whole: Json = {}
    found = False
    for path in paths:
        try:
            text = _read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise _unusable(f"{path} can't be read: {error}", reach) from error
        found = True
        for key, value in _parsed(text, path, reach).items():
            if key in _LISTS:
                known = {each["name"] for each in whole.setdefault(key, [])}
                entries = [_entry(each, _LISTS[key], path, reach) for each in value or []]
                whole[key] += [each for each in entries if each["name"] not in known]
            elif value:
                whole.setdefault(key, value)
    if not found:
        raise _unusable(f"there is none at {' or '.join(paths) or 'any place'}", reach)
    return whole


def _read(path: str) -> str:
    """Return a file's text. Not by pathlib, of which most of this module's import would be."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def _paths(given: str | None, environ: Mapping[str, str]) -> list[str]:
    if given is not None:
        return [os.path.expanduser(given)]
    if listed := environ.get("KUBECONFIG"):
        return [each for each in listed.split(os.pathsep) if each]
    return [os.path.join(os.path.expanduser("~"), ".kube", "config")]


def _parsed(text: str, path: str, reach: Reach) -> Json:
    if text.lstrip().startswith("{"):
        try:
            read = json.loads(text)
        except ValueError as error:
            raise _unusable(f"{path} is no JSON: {error}", reach) from error
    else:
        import yaml  # noqa: PLC0415 - what is JSON needs none

        try:
            read = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C
        except yaml.YAMLError as error:
            raise _unusable(f"{path} is no YAML: {str(error).splitlines()[0]}", reach) from error
    if not isinstance(read, dict):
        raise _unusable(f"{path} is no kubeconfig", reach)
    for key in _LISTS:
        if not isinstance(read.get(key) or [], list):
            raise _unusable(f"{key} of {path} is no list", reach)
    return read


def _entry(entry: object, kind: str, path: str, reach: Reach) -> Json:
    """Return a named entry, its files as seen from the kubeconfig's folder."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _unusable(f"a {kind} of {path} has no name", reach)
    inside = entry.get(kind) or {}
    if not isinstance(inside, dict):
        raise _unusable(f"{kind} {entry['name']} of {path} is no mapping", reach)
    said = {
        key: os.path.join(os.path.dirname(path), value) if key in _FILES and isinstance(value, str) and value else value
        for key, value in inside.items()
    }
    if isinstance(run := said.get("exec"), dict) and os.sep in str(run.get("command") or ""):
        said["exec"] = {**run, "command": os.path.join(os.path.dirname(path), run["command"])}
    return {"name": entry["name"], kind: said}


def _named(config: Json, kind: str, name: str, reach: Reach) -> Json:
    entries = config.get(kind) or []
    for each in entries:
        if each["name"] == name:
            found: Json = each[_LISTS[kind]]
            return found
    if kind == "contexts" and reach.context is not None and entries:
        raise TwinCliError(f"The kubeconfig has no context {name}. {_known([each['name'] for each in entries])}")
    raise _unusable(f"it has no {_LISTS[kind]} {name or 'for its context'}", reach)


def _known(contexts: Sequence[str]) -> str:
    if len(contexts) > _SHOWN:
        return f"It has {len(contexts)} others: `kubectl config get-contexts` lists them."
    *first, last = contexts
    return f"It has {', '.join(first)} and {last}." if first else f"It has {last}."


def _unusable(why: str, reach: Reach) -> TwinCliError:
    if reach.kubeconfig is None:
        remedy = "Set KUBECONFIG, for the local cluster `export KUBECONFIG=$(make -s kubeconfig)`"
    else:
        remedy = "Name another file by --kubeconfig, or leave it out"
    if reach.context is not None:
        remedy += f", or choose another --context than {reach.context}: `kubectl config get-contexts` lists them"
    return TwinCliError(f"No usable kubeconfig: {why.rstrip('.')}. {remedy}.")


def _identity(user: Json) -> list[tuple[str, str]]:
    token = user.get("token")
    if user.get("tokenFile"):  # counts before `token`, as with kubectl
        try:
            token = _read(user["tokenFile"]).strip()
        except OSError as error:
            raise TwinCliError(f"The token file {user['tokenFile']} can't be read: {error.strerror}.") from error
    if provider := user.get("auth-provider"):
        token = _token_of_provider(provider)
    if token:
        return [("Authorization", f"Bearer {token}")]
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}".encode()
        return [("Authorization", f"Basic {base64.b64encode(pair).decode()}")]
    return []


def _token_of_provider(provider: Json) -> str:
    """Return the token that kubectl has stored; who renews it is kubectl."""
    name, token = provider.get("name"), str((provider.get("config") or {}).get("id-token") or "")
    if name != "oidc":
        raise TwinCliError(
            f"The kubeconfig logs in by the auth-provider {name}, which is none that is known here: use a credential "
            "plugin (`exec`), a token or a client certificate."
        )
    try:
        middle = token.split(".")[1]
        ends = float(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))["exp"])
    except (LookupError, ValueError, TypeError):
        ends = 0.0
    if ends <= time.time():
        raise TwinCliError("The token of your login (oidc) has ended: `kubectl get twins` renews it. Then try again.")
    return token


def _impersonation(user: Json, reach: Reach) -> list[tuple[str, str]]:
    """Return whom to act as: what the command says counts before the kubeconfig's user."""
    if reach.user is None and reach.groups:
        raise TwinCliError("--as-group says what somebody belongs to: say with --as who that is.")
    acting = reach.user or user.get("as")
    if not acting:
        return []
    said = [("Impersonate-User", str(acting))]
    if reach.user is not None:
        return said + [("Impersonate-Group", each) for each in reach.groups]
    said += [("Impersonate-Group", str(each)) for each in user.get("as-groups") or []]
    if uid := user.get("as-uid"):
        said.append(("Impersonate-Uid", str(uid)))
    for key, values in (user.get("as-user-extra") or {}).items():
        said += [(f"Impersonate-Extra-{key}", str(value)) for value in values]
    return said


def _plugged(user: Json, cluster: Json, environ: Mapping[str, str]) -> Json:
    """Run the user's credential plugin and return what it gives, as fields of a user."""
    import subprocess  # noqa: PLC0415 - most kubeconfigs need none

    spec = user["exec"]
    version, command = spec.get("apiVersion"), str(spec.get("command") or "")
    if version not in _EXEC_VERSIONS:
        raise TwinCliError(f"The credential plugin {command} speaks {version}: only {' and '.join(_EXEC_VERSIONS)} do.")
    asks = spec.get("interactiveMode") != "Never" and sys.stdin.isatty()
    info: Json = {"kind": "ExecCredential", "apiVersion": version, "spec": {"interactive": asks}}
    if spec.get("provideClusterInfo"):
        known = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
        info["spec"]["cluster"] = {key: cluster[key] for key in known if cluster.get(key)}
        if path := cluster.get("certificate-authority"):
            info["spec"]["cluster"]["certificate-authority-data"] = base64.b64encode(_read(path).encode()).decode()
        for extension in cluster.get("extensions") or []:
            if extension.get("name") == "client.authentication.k8s.io/exec":
                info["spec"]["cluster"]["config"] = extension.get("extension")
    more = {each["name"]: str(each["value"]) for each in spec.get("env") or []}
    try:
        done = subprocess.run(
            [command, *map(str, spec.get("args") or [])], check=False, timeout=_EXEC_SECONDS, stdout=subprocess.PIPE,
            stdin=None if asks else subprocess.DEVNULL,
            env={**environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(info)},
        )  # fmt: skip
    except FileNotFoundError as error:
        hint = f" {spec['installHint']}" if spec.get("installHint") else ""
        raise TwinCliError(f"The credential plugin {command} of the kubeconfig is not installed.{hint}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TwinCliError(f"The credential plugin {command} of the kubeconfig did not run: {error}.") from error
    if done.returncode != 0:
        raise TwinCliError(f"The credential plugin {command} of the kubeconfig failed, with status {done.returncode}.")
    try:
        status = json.loads(done.stdout)["status"]
        given = {
            "token": status.get("token"),
            "client-certificate-data": status.get("clientCertificateData"),
            "client-key-data": status.get("clientKeyData"),
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TwinCliError(f"The credential plugin {command} of the kubeconfig gave no ExecCredential.") from error
    if not any(given.values()):
        raise TwinCliError(f"The credential plugin {command} of the kubeconfig gave neither token nor certificate.")
    for key in ("client-certificate-data", "client-key-data"):  # a plugin's are PEM as such
        if given[key]:
            given[key] = base64.b64encode(str(given[key]).encode()).decode()
    return {key: value for key, value in given.items() if value}


def _tls(cluster: Json, user: Json) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(
            cafile=None if cluster.get("certificate-authority-data") else cluster.get("certificate-authority") or None,
            cadata=_decoded(cluster, "certificate-authority-data") or None,
        )
        # A private CA of a cluster often lacks what RFC 5280 asks for; kubectl takes it.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if cluster.get("insecure-skip-tls-verify"):
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        elif cluster.get("tls-server-name"):
            made.check_hostname = True
        _load_certificate(made, user)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TwinCliError(f"The kubeconfig's certificates can't be used: {error}.") from error
    return made


def _load_certificate(made: ssl.SSLContext, user: Json) -> None:
    """Load the user's certificate; what stands in the kubeconfig itself lies in a file for that moment."""
    certificate, key = (_decoded(user, f"client-{part}-data") for part in ("certificate", "key"))
    paths = [user.get("client-certificate"), user.get("client-key")]
    if not (certificate or paths[0]):
        return
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="kubectl-twin-") as folder:  # mode 0700
        for place, text in enumerate((certificate, key)):
            if text:
                paths[place] = os.path.join(folder, str(place))
                with open(str(paths[place]), "w", encoding="ascii") as file:
                    file.write(text)
        made.load_cert_chain(str(paths[0]), None if paths[1] is None else str(paths[1]))


def _decoded(entry: Json, key: str) -> str:
    try:
        return base64.b64decode("".join(str(entry.get(key) or "").split()), validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{key} is not base64 of PEM") from error


def _proxy_of(server: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy that the environment names for this server."""
    split = urlsplit(server)
    named = f"{split.scheme}_proxy"
    proxy = environ.get(named) or environ.get(named.upper())
    host, port = split.hostname or "", split.port
    if not proxy or host in ("localhost", "::1") or host.startswith("127."):
        return None  # Go, and so kubectl, asks no proxy for this machine
    for each in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        rule = each.strip().lower()
        if rule and _spared(rule, host.lower(), port):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _spared(rule: str, host: str, port: int | None) -> bool:
    if rule == "*":
        return True
    if "/" in rule:
        import ipaddress  # noqa: PLC0415 - seldom

        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, _, number = rule.partition(":")
    if number and number != str(port or ""):
        return False
    bare = name.removeprefix("*").removeprefix(".")
    return (host == bare and not name.startswith((".", "*"))) or host.endswith(f".{bare}")


def proxy_identity(proxy: str) -> dict[str, str]:
    """Return the header by which a proxy knows who asks, where its URL says it."""
    split = urlsplit(proxy)
    if split.username is None:
        return {}
    pair = f"{unquote(split.username)}:{unquote(split.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
