"""What a pool's spec adds to pods."""

from __future__ import annotations

from bettertherapy_api.pod_overlay import PodOverlay, ServingPodOverlay
from tests.unit.operator.children.pods import OVERLAY, children, pod_of
from twin_operator.kinds.podspec.overlay import added_metadata, added_placement, added_volumes, with_added_env

OWN = {"a": "b"}
FULL = ServingPodOverlay.model_validate(OVERLAY)


def test_nothing_is_added_without_an_overlay() -> None:
    assert added_placement(None, own_pods=OWN) == {}
    assert added_volumes(None) == []
    assert with_added_env([{"name": "A", "value": "1"}], None) == [{"name": "A", "value": "1"}]
    assert added_metadata(None, labels=OWN, annotations={}) == {"labels": OWN}


def test_our_labels_win() -> None:
    overlay = PodOverlay(labels={"a": "theirs", "more": "1"}, annotations={"n": "1"})
    assert added_metadata(overlay, labels=OWN, annotations={"o": "2"}) == {
        "labels": {"a": "b", "more": "1"},
        "annotations": {"n": "1", "o": "2"},
    }


def test_a_term_without_a_selector_means_the_pools_own_pods() -> None:
    placed = added_placement(FULL, own_pods=OWN)
    assert placed["priorityClassName"] == "gold"
    own = {"matchLabels": OWN}
    [spread] = placed["topologySpreadConstraints"]
    [term] = placed["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert spread["labelSelector"] == term["labelSelector"] == own


def test_a_selector_that_is_given_stays() -> None:
    theirs = {"matchLabels": {"x": "y"}}
    overlay = PodOverlay.model_validate(
        {
            "affinity": {
                "podAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": theirs}}
                    ]
                }
            }
        }
    )
    placed = added_placement(overlay, own_pods=OWN)["affinity"]["podAffinity"]
    assert placed["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"] == theirs


def test_each_volume_has_its_source() -> None:
    assert added_volumes(FULL) == [
        {"name": "extra-data", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "extra-keys", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "extra-conf", "configMap": {"name": "m", "defaultMode": 0o444}},
        {"name": "extra-ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ]


def test_a_variable_takes_the_place_of_ours() -> None:
    overlay = PodOverlay.model_validate({"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]})
    assert with_added_env([{"name": "A", "value": "1"}, {"name": "C", "value": "4"}], overlay) == [
        {"name": "A", "value": "2"}, {"name": "C", "value": "4"}, {"name": "B", "value": "3"},
    ]  # fmt: skip


def test_pods_of_engine_and_miner_carry_it() -> None:
    found = children(engine={"device": "CPU", "pod": OVERLAY}, miner={"pod": OVERLAY})
    for name in ("p-engine", "p-miner"):
        template = found["Deployment", name]["spec"]["template"]
        assert template["metadata"]["labels"]["team"] == "a"
        assert template["metadata"]["annotations"]["note"] == "b"
        assert pod_of(found["Deployment", name])["priorityClassName"] == "gold"
        assert {"extra-data", "extra-keys", "extra-conf", "extra-ram"} <= {
            volume["name"] for volume in pod_of(found["Deployment", name])["volumes"]
        }
