"""What a server that a pool names answers is repeated to nobody: it may be one that only the pod reaches."""

from __future__ import annotations

import json

import pytest

from neurons.agent.engine import parse_error

SECRET = "the-root-password"


@pytest.mark.parametrize(
    "body",
    [
        SECRET, f"<html>{SECRET}</html>", json.dumps({"message": SECRET}), json.dumps([SECRET]),
        json.dumps({"error": {"type": SECRET, "message": SECRET, "param": SECRET}}),
        json.dumps({"error": {"type": "NotFoundError", "message": SECRET}}),
    ],
)  # fmt: skip
def test_no_word_of_an_error_goes_into_a_report(body: str) -> None:
    said = parse_error(403, body.encode(), of_stranger=True)
    assert SECRET not in f"{said} {said!r} {said.kind} {said.message} {said.param}"
    assert "403" in str(said)


def test_what_tells_failures_apart_is_still_known() -> None:
    missing = {"error": {"type": "NotFoundError", "message": "The model `x` does not exist."}}
    assert parse_error(404, json.dumps(missing).encode(), of_stranger=True).is_not_found
    infinite = {"error": {"type": "BadRequestError", "message": f"Out of range float values: {SECRET}"}}
    said = parse_error(400, json.dumps(infinite).encode(), of_stranger=True)
    assert said.is_not_finite == parse_error(400, json.dumps(infinite).encode()).is_not_finite
    assert SECRET not in said.message


def test_the_pools_own_engine_is_quoted() -> None:
    assert "no such layer" in str(parse_error(400, b'{"message": "no such layer", "type": "BadRequestError"}'))
