"""An API server in memory, and a clock that goes on when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubectl_twin.api import Api, core_path, runs_path, twins_path
from kubectl_twin.errors import ApiError
from kubectl_twin.finetune import Clock

from .objects import Json


class MemoryApi(Api):
    """Answers from a dict of paths; `react` plays the operator after each patch and each second of sleep."""

    def __init__(self, *objects: Json, react: Callable[[MemoryApi], None] | None = None) -> None:
        self.objects: dict[str, Json] = {}
        self.namespace = "clinic"
        self.patches: list[Json] = []
        self.react = react or (lambda _api: None)
        self.time = 0.0
        self.down = False
        self.clock = Clock(now=lambda: self.time, sleep=self._sleep)
        for thing in objects:
            self.put(thing)

    def put(self, thing: Json) -> None:
        name = thing["metadata"]["name"]
        if "data" in thing:
            self.objects[core_path("configmaps", "clinic", name)] = thing
        elif "twinRef" in thing["spec"]:
            self.objects[runs_path("clinic", name)] = thing
        else:
            self.objects[twins_path("clinic", name)] = thing

    @property
    def twin(self) -> Json:
        return self.objects[twins_path("clinic", "dr-gurung")]

    @property
    def asked(self) -> Json:
        """The twin's annotations."""
        found: Json = self.twin["metadata"].get("annotations") or {}
        return found

    def get(self, path: str, query: Any = None) -> Json:
        if self.down:
            from kubectl_twin.errors import TwinCliError

            raise TwinCliError("Can't reach the API server")
        if path in self.objects:
            return self.objects[path]
        items = [thing for where, thing in sorted(self.objects.items()) if where.rpartition("/")[0] == path]
        listed = {"doctortwins", "finetuneruns", "configmaps", "validatorrounds"}
        if not items and path.rpartition("/")[2] not in listed:
            raise ApiError(f"no {path}", status=404)
        if query and (wanted := query.get("fieldSelector") or "").startswith("spec.twinRef.name="):
            name = wanted.removeprefix("spec.twinRef.name=")
            items = [thing for thing in items if thing["spec"]["twinRef"]["name"] == name]
        return {"items": items}

    def patch(self, path: str, body: Json) -> Json:
        self.patches.append(body)
        metadata = self.objects[path]["metadata"]
        merged = {**(metadata.get("annotations") or {}), **body["metadata"]["annotations"]}
        metadata["annotations"] = {key: value for key, value in merged.items() if value is not None}
        self.react(self)
        return self.objects[path]

    def _sleep(self, seconds: float) -> None:
        self.time += max(seconds, 1.0)
        self.react(self)
