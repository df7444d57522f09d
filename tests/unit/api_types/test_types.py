"""The types behind the API: names, selectors, the manifest and the generator."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bettertherapy_api import crd, names
from bettertherapy_api.doctor_twin import DoctorTwinSpec
from bettertherapy_api.manifest import AdapterManifest, FileEntry, Fingerprint, manifest_digest
from bettertherapy_api.schema import LabelSelector

DIGEST = "sha256:" + "ab" * 32


def test_a_version_is_served_under_a_name_made_from_its_content() -> None:
    assert names.served_name("dr-x", DIGEST) == "dr-x-abababab"
    assert names.adapter_path("dr-x", DIGEST) == "/adapters/dr-x/" + "ab" * 32


@pytest.mark.parametrize("value", ["", "sha256:", "sha256:AB", "ab" * 32, "sha512:" + "ab" * 32, DIGEST + "\n"])
def test_what_is_no_digest_is_refused(value: str) -> None:
    assert not names.is_digest(value)
    with pytest.raises(ValueError, match="is not a digest"):
        names.served_name("dr-x", value)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"missing": "1"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors_select_as_in_kubernetes(selector: dict[str, object], expected: bool) -> None:
    assert LabelSelector.model_validate(selector).matches({"a": "1"}) is expected


def test_a_manifest_digest_covers_the_fingerprint() -> None:
    def manifest(logprob: float) -> bytes:
        return AdapterManifest(
            base_model={"name": "m"},
            rank=16,
            files=(FileEntry(path="adapter_model.safetensors", digest=DIGEST, size=1),),
            fingerprint=Fingerprint(token_ids=(1, 2), logprobs=(logprob,)),
        ).to_bytes()

    assert manifest_digest(manifest(-1.0)) == manifest_digest(manifest(-1.0))
    assert manifest_digest(manifest(-1.0)) != manifest_digest(manifest(-2.0))


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_manifest_names_only_plain_files(path: str) -> None:
    with pytest.raises(ValidationError):
        FileEntry(path=path, digest=DIGEST, size=1)


def test_a_fingerprint_has_one_logprob_less_than_tokens() -> None:
    with pytest.raises(ValidationError, match="expected one less"):
        Fingerprint(token_ids=(1, 2, 3), logprobs=(-1.0,))


def test_an_older_operator_reads_a_newer_object() -> None:
    spec = DoctorTwinSpec.model_validate({
        "doctor": {"name": "Dr. X", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {}, "fromTheFuture": 1,
    })  # fmt: skip
    assert spec.placement.mode == "All"


def test_generated_files_are_current() -> None:
    assert crd.main(["--check"]) == 0


def test_the_generator_refuses_a_field_without_bounds() -> None:
    assert list(
        crd._unbounded({"type": "object", "description": "x", "properties": {"a": {"type": "string"}}}, "s")
    ) == [
        "s.a: string without maxLength",
        "s.a: no description",
    ]


def test_a_column_of_a_time_to_come_is_no_date() -> None:
    """Of a date kubectl shows how long ago it is: <invalid> of the next round, always."""
    dates = {column["jsonPath"] for kind in crd.KINDS for column in kind.COLUMNS if column["type"] == "date"}
    assert dates == {".metadata.creationTimestamp"}
