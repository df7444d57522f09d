"""A pod's report as the API server gets it: made once, then only what changed, and made again when it is gone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, PodRef, PodReport
from neurons.cluster import ClusterError, PodReportWriter, paths
from neurons.cluster.pod_report import merge_patch

UNTRACKED = {"managedFields": [{}]}
"""The API server is not to note who wrote which of a thousand adapters."""
PATH = "/apis/bettertherapy.io/v1alpha1/namespaces/clinic/podreports"


class Server:
    """An API server that keeps one collection, and merges as RFC 7396 says."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, Any]] = []
        self.down = False

    async def get(self, path: str, params: Any) -> dict[str, Any]:
        return copy.deepcopy(self._object(path))

    async def create(self, path: str, document: dict[str, Any]) -> None:
        self.writes.append(("create", document))
        self.objects[f"{path}/{document['metadata']['name']}"] = copy.deepcopy(document)

    async def merge(self, path: str, patch: dict[str, Any]) -> None:
        if self.down:
            raise TimeoutError
        thing = self._object(path)
        self.writes.append(("merge", patch))
        self.objects[path] = merged(thing, patch)

    async def delete(self, path: str) -> None:
        self._object(path)
        self.writes.append(("delete", None))
        del self.objects[path]

    def _object(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise ClusterError(404, "NotFound", "no such report")
        return self.objects[path]


def merged(before: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def adapter(letter: str, state: AdapterState = AdapterState.VERIFIED) -> AdapterReport:
    return AdapterReport(twin="dr-a", twin_uid="u1", digest="sha256:" + letter * 64, state=state)


def report(uid: str = "uid-1", ready: bool = True, **adapters: AdapterReport) -> PodReport:
    return PodReport(pod=PodRef(name="pod-1", uid=uid), ready=ready, engine=EngineReport(live=True), adapters=adapters)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def writer(server: Server) -> PodReportWriter:
    return PodReportWriter(server, namespace="clinic", labels=paths.report_labels("pool"))  # type: ignore[arg-type]


def content(server: Server) -> dict[str, Any]:
    return {k: v for k, v in server.objects[f"{PATH}/pod-1"].items() if k not in ("apiVersion", "kind", "metadata")}


async def test_it_is_made_with_its_pod_as_its_owner(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report())
    metadata = server.objects[f"{PATH}/pod-1"]["metadata"]
    assert metadata["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "pod-1", "uid": "uid-1"}]
    assert metadata["labels"] == {names.LABEL_POOL: "pool", names.LABEL_COMPONENT: "report"}


async def test_only_what_changed_is_sent(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(a=adapter("a"), b=adapter("b")))
    await writer.write(report(a=adapter("a"), b=adapter("b", AdapterState.LOADING), c=adapter("c")))
    await writer.write(report(a=adapter("a"), c=adapter("c")))
    wanted = adapter("c").to_dict()
    assert server.writes[1:] == [
        ("merge", {"adapters": {"b": {"state": "Loading"}, "c": wanted}, "metadata": UNTRACKED}),
        ("merge", {"adapters": {"b": None}, "metadata": UNTRACKED}),
    ]
    assert content(server) == report(a=adapter("a"), c=adapter("c")).to_dict()


async def test_a_look_at_what_is_right_writes_nothing(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(a=adapter("a")))
    await writer.write(report(a=adapter("a")))
    assert len(server.writes) == 1


async def test_a_look_mends_what_others_changed(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(a=adapter("a")))
    thing = server.objects[f"{PATH}/pod-1"]
    thing["adapters"] = {"x": adapter("e").to_dict()}
    thing["metadata"] = {"name": "pod-1"}
    await writer.write(report(a=adapter("a")))
    assert content(server) == report(a=adapter("a")).to_dict()
    assert server.objects[f"{PATH}/pod-1"]["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


@pytest.mark.parametrize("changed", [True, False])
async def test_one_that_somebody_deleted_is_made_again(server: Server, writer: PodReportWriter, changed: bool) -> None:
    await writer.write(report(a=adapter("a")))
    server.objects.clear()
    wanted = report(b=adapter("b")) if changed else report(a=adapter("a"))
    await writer.write(wanted)
    assert content(server) == wanted.to_dict()


async def test_an_agent_that_starts_again_finds_its_own(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(a=adapter("a"), b=adapter("b")))
    again = PodReportWriter(server, namespace="clinic", labels=paths.report_labels("pool"))  # type: ignore[arg-type]
    await again.write(report(ready=False, a=adapter("a")))
    assert server.writes[1:] == [("merge", {"ready": False, "adapters": {"b": None}, "metadata": UNTRACKED})]


async def test_one_of_a_former_pod_of_that_name_is_replaced(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(uid="former", a=adapter("a")))
    again = PodReportWriter(server, namespace="clinic", labels=paths.report_labels("pool"))  # type: ignore[arg-type]
    await again.write(report(b=adapter("b")))
    assert [what for what, _ in server.writes] == ["create", "delete", "create"]
    assert content(server) == report(b=adapter("b")).to_dict()


async def test_after_a_write_of_unknown_fate_it_looks(server: Server, writer: PodReportWriter) -> None:
    await writer.write(report(a=adapter("a")))
    server.down = True
    with pytest.raises(TimeoutError):
        await writer.write(report(b=adapter("b")))
    server.down = False
    # It had arrived after all.
    server.objects[f"{PATH}/pod-1"]["adapters"] = {"b": adapter("b").to_dict(), "c": adapter("c").to_dict()}
    await writer.write(report(b=adapter("b")))
    assert content(server) == report(b=adapter("b")).to_dict()


async def test_removing_what_is_gone_is_no_error(server: Server, writer: PodReportWriter) -> None:
    await writer.remove("pod-1")
    await writer.write(report())
    await writer.remove("pod-1")
    assert server.objects == {}


DOCUMENTS = st.recursive(
    st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
).map(lambda value: {"root": value})


@given(DOCUMENTS, DOCUMENTS)
def test_a_merge_patch_makes_the_one_from_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = merge_patch(before, after)
    assert merged(before, patch) == after
    assert bool(patch) == (before != after)
