"""Addresses in the API: what an origin, an endpoint, a place in a store and host:port are, refused in words.

The rules stand in the schema alone. What was stored before them is still read, and the API server lets it be.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from bettertherapy_api.schema import cel, rules

_NAME: Final = "[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?"
_IPV4: Final = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}"
_IPV6: Final = "[[][0-9a-fA-F:.]+[]]"
_HOST: Final = f"({_NAME}([.]{_NAME})*|{_IPV6})"
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# Percent signs are decoded once where a place is read: a step, or the end of a part, written so would be one then.
_NO_STEPS: Final = "!self.matches('(?i)(^|/)([.]|%2e){1,2}(/|%2f|$)|%2f|%5c')"

Origin = Annotated[
    str,
    Field(
        pattern=r"^(\*|https?://[^\s/,]+)$",
        min_length=1,
        max_length=256,
        json_schema_extra=rules(
            cel(
                f"self == '*' || self.matches('^https?://{_HOST.replace('A-Z', '').replace('A-F', '')}(:{_PORT})?$')",
                "write an origin as a browser sends it: http or https, a host in small letters, a port from 1 to 65535 "
                "if it is not the usual one, and nothing else, as in https://clinic.example; or * for all",
            )
        ),
    ),
]
"""Of a web page (RFC 6454)."""

PagesOrigin = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s/,]+$",
        min_length=1,
        max_length=256,
        json_schema_extra=rules(
            cel(
                f"self.matches('^(https://{_HOST.replace('A-Z', '').replace('A-F', '')}"
                f"|http://(localhost|127[.]0[.]0[.]1|[[]::1[]]))(:{_PORT})?$')",
                "write the origin as browsers send it: https, a host in small letters, a port from 1 to 65535 if it is "
                "not 443, and nothing else, as in https://ask.clinic.example; http only for localhost, since cookies "
                "would travel in clear",
            )
        ),
    ),
]
"""By which browsers reach pages that set cookies."""

GatewayOrigin = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s/,]+$",
        min_length=8,
        max_length=256,
        json_schema_extra=rules(
            cel(
                f"self.matches('^https?://{_HOST.replace('A-Z', '').replace('A-F', '')}(:{_PORT})?$')",
                "write the origin by which miners reach the gateway: http or https, a host in small letters, a port "
                "from 1 to 65535 if it is not the usual one, and nothing else, as in https://ask.clinic.example",
            )
        ),
    ),
]
"""Of a gateway, for programs."""

_OF_CLOUDS: Final = "169[.]254[.][0-9]+[.][0-9]+|168[.]63[.]129[.]16|100[.]100[.]100[.]200|192[.]0[.]0[.]192"
LINK_LOCAL: Final = (
    f"(?i)^https?://(({_OF_CLOUDS}|[0-9]+|[0-9]+[.][0-9]+|[0-9]+[.][0-9]+[.][0-9]+)[.]?(:|/|$)"
    "|([0-9a-fx]+[.])*0[0-9x]|[[]fe[89ab][0-9a-f]:|[[][0-9a-f:]*(a9fe:|169[.]254[.])|[[]fd00:ec2:"
    "|(metadata[.]google[.]internal|metadata|instance-data([.]ec2[.]internal)?)[.]?(:|/|$))"
)
"""Endpoints where clouds hand their machines' keys to whoever asks, and addresses written so as to hide one: with other
than four parts, or with parts in octal or hex."""

Endpoint = Annotated[
    str,
    Field(
        min_length=8,
        max_length=1024,
        pattern=r"^https?://[^\s]+$",
        json_schema_extra=rules(
            cel(
                f"self.matches('^https?://{_HOST}(:{_PORT})?(/[^?#]*)?$')",
                "write the endpoint as http(s)://host, with a port from 1 to 65535 and a path if it has them: no user, "
                "? or #, since paths are put behind it and keys belong into secretRef",
            ),
            cel(
                f"!self.matches('{LINK_LOCAL}')",
                "the endpoint is a link-local address, where clouds hand out keys, or one written as a number: name "
                "the server by its host name",
            ),
        ),
    ),
]
"""Of a server."""

"""Endpoints where clouds hand their machines' keys to whoever asks, and addresses written so as to hide one."""
_LINK_LOCAL: Final = re.compile(LINK_LOCAL.replace("[[]", r"\["))
"""The same as Python has it, which warns of a bracket in brackets."""


def is_link_local(endpoint: str) -> bool:
    """Tell whether an endpoint is, or may hide, a link-local address."""
    return _LINK_LOCAL.search(endpoint) is not None


Network = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\s]+$",
        json_schema_extra=rules(
            cel(
                f"self.matches('^(local|finney|test|(wss?|https?)://{_HOST}(:{_PORT})?(/[^?#@]*)?)$')",
                "write the network as finney, test, the ws:// or wss:// URL of a chain endpoint, the http:// URL of a "
                "local subnet, or local for the one whose Service in this namespace is called subnet: no user, ? or #",
            ),
            cel(
                f"!self.matches('{LINK_LOCAL.replace('https?', '(https?|wss?)', 1)}')",
                "the network is a link-local address, where clouds hand out keys, or one written as a number: name "
                "the server by its host name",
            ),
        ),
    ),
]
"""Of a chain, by name or URL."""

ClaimFolder = Annotated[
    str,
    Field(
        min_length=8,
        max_length=512,
        pattern=r"^pvc://[^\s]+$",
        json_schema_extra=rules(
            cel(
                f"self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/?#@:][^?#@:]*$') && {_NO_STEPS}",
                "write the folder as pvc://claim/path: a folder of its own on a claim that several pods may mount, "
                "with no ?, #, @ or :, and no . or .. as a part",
            )
        ),
    ),
]
"""A folder on a claim, and not its root."""

StorePlace = Annotated[
    str,
    Field(
        min_length=8,
        max_length=1024,
        pattern=r"^(pvc|file|s3|gs|az)://[^\s]+$",
        json_schema_extra=rules(
            cel(
                f"self.matches('^((pvc|s3|gs|az)://[^/?#@:]+(/[^?#]*)?|file:///[^?#]+)$') && {_NO_STEPS}",
                "write the place as pvc://claim/path, s3://bucket/path, gs://, az:// or file:///path: no ? or #, which "
                "would cut it off, no . or .. as a part, and no user or key, which belong into a Secret",
            )
        ),
    ),
]
"""In an adapter store."""

_UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DatasetPlace = Annotated[
    str,
    Field(
        min_length=8,
        max_length=1024,
        pattern=r"^(pvc|file|s3|gs|az|https?)://[^\s]+$",
        json_schema_extra=rules(
            cel(
                f"self.matches('^((pvc|s3|gs|az)://[^/?#@:]+(/[^?#]*)?|file:///[^?#]+"
                f"|https?://{_HOST}(:{_PORT})?/v1/tasks/{_UUID}/(dataset|examination)[?][^#]*)$') && {_NO_STEPS}",
                "write the place as pvc://claim/path, s3://bucket/path, gs://, az:// or file:///path: no ? or #, which "
                "would cut it off, no . or .. as a part, and no user or key, which belong into a Secret; or, of a "
                "validator's task, as the http(s):// address that its offer names",
            )
        ),
    ),
]
"""Of a dataset: in a store, or what a validator's gateway gives for a task."""

ModelPlace = Annotated[
    str,
    Field(
        min_length=6,
        max_length=1024,
        pattern=r"^(hf|s3|gs|az|pvc|file)://[^\s]+$",
        json_schema_extra=rules(
            cel(
                "self.matches('^(hf://[^/?#@:]+(/[^?#@:]+)?(@[^?#]+)?|(pvc|s3|gs|az)://[^/?#@:]+(/[^?#]*)?"
                f"|file:///[^?#]+)$') && {_NO_STEPS}",
                "write the place as hf://owner/name, s3://bucket/path, gs://, az://, pvc://claim/path or file:///path: "
                "no ? or #, which would cut it off, no . or .. as a part, and no user or key, which belong into a "
                "Secret",
            )
        ),
    ),
]
"""Of a base model."""

PublicAddress = Annotated[
    str,
    Field(
        min_length=3,
        max_length=256,
        json_schema_extra=rules(
            cel(
                f"self.matches('^({_IPV4}|{_IPV6}):{_PORT}$')",
                "write the address as IP:port, with a port from 1 to 65535 and no http:// before it, as in "
                "203.0.113.7:8091 or [2001:db8::7]:8091: the chain takes no names",
            )
        ),
    ),
]
"""As published on the chain."""

NodeFolder = Annotated[
    str,
    Field(
        min_length=2,
        max_length=512,
        pattern=r"^/[^:]*$",
        json_schema_extra=rules(
            cel("!self.matches('(^|/)[.][.](/|$)')", "write the folder without .., which no node lets a pod mount")
        ),
    ),
]
"""On a node."""
