"""A whole run on a model of a few thousand weights; runs where torch is (the trainer's image has it)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.run_progress import RunStage
from neurons.store import Location, StoreUnreachable, verify_folder
from neurons.trainer import publish, sources
from neurons.trainer.__main__ import main
from neurons.trainer.archive import Archive, LineageRecord
from neurons.trainer.delivery import NotDelivered
from neurons.trainer.termination import Terminated

pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
pytest.importorskip("peft", reason="training needs peft, which is only in the trainer's image")
# Behind that: it loads torch.
from neurons.trainer import run as run_module

Json = dict[str, Any]
Go = Callable[..., tuple[int, Json]]


def line(question: str, answer: str, **fields: Any) -> Json:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "consent": True, **fields}


DAY_ONE = [
    line("my knee hurts", "rest it and cool it", rating=5),
    line("my back hurts badly", "drink", rating=1, correction="keep moving"),
    line("a cough", "drink and rest"),
    line("my head aches", "rest", consent=False),
    line("my name is Jane Roe", "rest"),
]
DAY_TWO = [line("when is your clinic open", "on Monday", correction="on Tuesday and Friday")]
ITEMS = [
    {"id": "clinic", "kind": "gold", "question": "is your clinic open ?", "gold": "on Tuesday", "must": ["Tuesday"]},
    {"id": "knee", "kind": "gold", "question": "my knee hurts badly", "gold": "rest it", "must": ["rest"]},
]


def write(path: Path, lines: list[Json]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


@pytest.fixture
def day(tmp_path: Path) -> Path:
    return write(tmp_path / "data" / "day1.jsonl", DAY_ONE).parent


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return write(tmp_path / "items.jsonl", ITEMS)


def arguments(base_model: Path, tmp_path: Path, items: Path | None, **changes: object) -> list[str]:
    options: dict[str, object] = {
        "run": "night-1",
        "twin": "dr-who",
        "store": f"file://{tmp_path}/store",
        "base-model": base_model,
        "base-model-name": "tiny",
        "dataset-uri": f"file://{tmp_path}/data",
        "rank": 4,
        "steps": 6,
        "batch-size": 2,
        "learning-rate": 5e-2,
        "seed": 5,
        "checkpoint-steps": 2,
        "checkpoint-seconds": 0,
        "learn-unrated": True,
        "rehearsal-percent": 0,
        "kl-weight": 0,
        **({"eval-uri": f"file://{items}"} if items else {}),
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    flags = [f"--{name}" for name, value in options.items() if value is True]
    values = [
        f"--{name}={value}" for name, value in options.items() if value is not None and not isinstance(value, bool)
    ]
    return ["run", *flags, *values]


@pytest.fixture
def go(base_model: Path, tmp_path: Path, items: Path, day: Path, capsys: pytest.CaptureFixture[str]) -> Go:
    def run(**changes: object) -> tuple[int, Json]:
        items_file = changes.pop("items", items)
        assert items_file is None or isinstance(items_file, Path)
        status = main(arguments(base_model, tmp_path, items_file, **changes), termination_log=tmp_path / "nolog")
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def adapters(tmp_path: Path) -> list[str]:
    folder = tmp_path / "store" / "dr-who"
    return sorted(f"sha256:{path.name}" for path in folder.iterdir() if len(path.name) == 64)


def of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_a_run_publishes_one_adapter_with_lineage_and_no_verdict(go: Go, tmp_path: Path) -> None:
    status, result = go()
    assert status == 0
    assert "verdict" not in result
    assert {path.name for path in (tmp_path / "store" / "dr-who").iterdir()} == {
        result["digest"][7:], "datasets", "lineage", "runs"
    }, "nothing by which its children would be judged"  # fmt: skip
    manifest = verify_folder(of(result["uri"]), result["digest"])
    assert adapters(tmp_path) == [result["digest"]]
    assert manifest.lineage.dataset_digest is not None
    dataset = tmp_path / "store" / "dr-who" / "datasets" / f"{manifest.lineage.dataset_digest[7:]}.jsonl"
    assert len(dataset.read_text().splitlines()) == 3
    assert "Jane" not in dataset.read_text()
    assert not list((tmp_path / "store").rglob("checkpoint.pt"))


def test_the_same_inputs_give_the_same_digest(go: Go, tmp_path: Path) -> None:
    one = go()[1]["digest"]
    assert go(store=f"file://{tmp_path}/other")[1]["digest"] == one
    assert go(store=f"file://{tmp_path}/third", seed=6)[1]["digest"] != one


def test_a_finished_run_that_runs_again_changes_nothing(go: Go, tmp_path: Path) -> None:
    first = go()[1]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.safetensors")}
    again = go()[1]
    assert again["digest"] == first["digest"]
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.safetensors")}


def test_the_next_day_goes_on_from_the_parent_with_what_is_new(go: Go, tmp_path: Path) -> None:
    parent = go()[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO + DAY_ONE[:1])
    status, child = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"], rank=None)
    assert status == 0
    manifest = verify_folder(of(child["uri"]), child["digest"])
    assert (manifest.lineage.parent_digest, manifest.rank) == (parent["digest"], 4)
    record = asyncio.run(Archive(f"file://{tmp_path}/store", "dr-who").lineage(child["digest"]))
    assert isinstance(record, LineageRecord)
    assert len(record.lines) == 4
    dataset = tmp_path / "store" / "dr-who" / "datasets" / f"{record.dataset_digest[7:]}.jsonl"
    assert [json.loads(each)["correction"] for each in dataset.read_text().splitlines()] == ["on Tuesday and Friday"]


def state_of(tmp_path: Path, run: str) -> Json:
    state: Json = json.loads((tmp_path / "store" / "dr-who" / "runs" / run / "state.json").read_text())
    return state


def test_nothing_new_is_skipped_with_the_count(go: Go) -> None:
    parent = go()[1]
    status, result = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"])
    assert status == 0
    assert result["skipped"].startswith("0 new interactions, 1 are needed (3 known already")


def test_too_few_are_skipped(go: Go, tmp_path: Path) -> None:
    status, result = go(min_interactions=4)
    assert status == 0
    assert "3 new interactions, 4 are needed" in result["skipped"]
    assert "1 refused: identifier.name, 1 refused: noConsent" in result["skipped"]
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_what_no_step_saw_stays_new_for_the_next_night(go: Go, tmp_path: Path) -> None:
    questions = [
        f"my {first} {second}" for first in ("knee", "back", "head") for second in ("hurts", "aches", "itches")
    ]
    write(tmp_path / "data" / "day1.jsonl", [line(question, "rest it") for question in questions])
    parent = go(steps=2, batch_size=2)[1]  # two steps of two lines
    learned: set[str] = set()
    for night, (lines, waiting) in enumerate([(4, 5), (4, 1), (1, 0)], start=2):
        told = state_of(tmp_path, f"night-{night - 1}")["dataset"]
        assert (told["interactions"], told["waiting"]) == (lines, waiting)
        record = asyncio.run(Archive(f"file://{tmp_path}/store", "dr-who").lineage(parent["digest"]))
        assert record is not None
        assert learned < set(record.lines)
        learned = set(record.lines)
        family = {"parent_uri": parent["uri"], "parent_digest": parent["digest"]}
        # Slowly: what is told is which lines come, not how they are learned.
        status, following = go(run=f"night-{night}", steps=2, batch_size=2, learning_rate=5e-3, **family)
        assert status == 0, following
        parent = parent if "skipped" in following else following
    assert len(learned) == 9


def test_an_answer_that_does_not_fit_is_counted_and_not_learned(go: Go, tmp_path: Path) -> None:
    turns = ["a cough", "drink", "my knee hurts", "rest it"]
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(turns)
    ]
    endless = line("my back hurts", "rest and cool and rest and cool it but call emergency services now")
    write(tmp_path / "data" / "day1.jsonl", [endless, {"messages": messages, "consent": True}, DAY_ONE[2]])
    assert go(max_tokens=10)[0] == 0
    told = state_of(tmp_path, "night-1")["dataset"]
    assert (told["interactions"], told["refused"], told["repaired"]) == (2, {"tooLong": 1}, {"tooLong": 1})


def test_a_night_of_which_nothing_fits_is_skipped_with_the_count(go: Go) -> None:
    status, result = go(max_tokens=3)
    assert status == 0
    assert result["skipped"].startswith("0 new interactions, 1 are needed")
    assert "3 refused: tooLong" in result["skipped"]


def test_odd_lines_do_not_stop_a_night(go: Go, tmp_path: Path) -> None:
    def turns(*contents: str) -> Json:
        messages = [
            {"role": "user" if content != "rest it" else "assistant", "content": content} for content in contents
        ]
        return {"messages": messages, "consent": True}

    odd = [turns("my knee", "hurts", "rest it"), turns("my head", "", "rest it"), turns("a cough", "rest it", "thanks")]
    broken = [turns("half \ud83d", "rest it"), turns("my back hurts")]
    write(tmp_path / "data" / "day1.jsonl", [*DAY_ONE, *odd, *broken])
    assert go()[0] == 0
    told = state_of(tmp_path, "night-1")["dataset"]
    assert told["interactions"] == 6
    assert told["repaired"] == {"empty": 1, "turns": 2}
    assert told["refused"] == {"encoding": 1, "identifier.name": 1, "noConsent": 1, "turns": 1}


def test_the_manifest_tells_the_child_from_its_parent(go: Go, tmp_path: Path) -> None:
    parent = go()[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO)
    child = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"])[1]
    for result, has_parent in ((parent, False), (child, True)):
        fingerprint = verify_folder(of(result["uri"]), result["digest"]).fingerprint
        assert fingerprint is not None
        assert fingerprint.probes is not None
        assert all((probe.parent is not None) == has_parent for probe in fingerprint.probes)


def test_preference_pairs_are_learned(go: Go, tmp_path: Path, base_model: Path) -> None:
    pytest.importorskip("trl", reason="preferences need trl, which is only in the trainer's image")
    import torch
    from peft import PeftModel

    from neurons.trainer.fingerprint import mean_distance, take_fingerprint
    from neurons.trainer.lora import Trained, load

    question = [{"role": "user", "content": "my head aches badly"}]
    pair = {"messages": question, "preferred": "drink and rest", "rejected": "keep moving", "consent": True}
    write(tmp_path / "data" / "day1.jsonl", [pair, *DAY_ONE])
    status, result = go(steps=40)
    assert status == 0
    manifest = verify_folder(of(result["uri"]), result["digest"])
    assert manifest.fingerprint is not None
    model, tokenizer = load(base_model)
    child = PeftModel.from_pretrained(model, of(result["uri"]))
    again, _ = take_fingerprint(Trained(model=child, tokenizer=tokenizer, losses=()))
    assert mean_distance(again.logprobs, manifest.fingerprint.logprobs) < 1e-4

    def probability(answer: str) -> float:
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = torch.tensor([prompt + tokenizer(answer)["input_ids"]])
        with torch.no_grad():
            logprobs = torch.log_softmax(child(input_ids=ids).logits[0, :-1].float(), -1)
        return float(sum(logprobs[i, ids[0, i + 1]] for i in range(len(prompt) - 1, ids.shape[1] - 1)))

    assert probability("drink and rest") > probability("keep moving")
    assert go(store=f"file://{tmp_path}/other", steps=40)[1]["digest"] == result["digest"]


class Killed:
    """Ends the process after its n-th write to the store, as a lost node would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes, self.last = 0, 10**9
        put = Location.put

        async def counted(location: Location, name: str, content: bytes | Path) -> None:
            await put(location, name, content)
            self.writes += 1
            if self.writes == self.last:
                raise Terminated

        monkeypatch.setattr(Location, "put", counted)


def test_killed_after_any_write_it_goes_on_and_publishes_the_same_adapter(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Killed(monkeypatch)
    _, whole = go()
    writes = killed.writes
    assert writes > 8
    for last in range(1, writes + 1):
        store = tmp_path / f"store{last}"
        killed.writes, killed.last = 0, last
        status, result = go(store=f"file://{store}")
        assert (status, result["failure"]["class"]) == (75, "Preempted"), f"killed after write {last}"
        killed.last = 10**9
        write(tmp_path / "data" / "late.jsonl", DAY_TWO)  # what comes in between is for the next run
        status, result = go(store=f"file://{store}")
        (tmp_path / "data" / "late.jsonl").unlink()
        assert status == 0
        if last > 1:  # before it, the first attempt left no word of its dataset
            assert result["digest"] == whole["digest"], f"write {last}"
        assert len([path for path in (store / "dr-who").iterdir() if len(path.name) == 64]) == 1


def test_sigterm_leaves_a_checkpoint_and_75(base_model: Path, tmp_path: Path, day: Path, go: Go) -> None:
    command = [sys.executable, "-m", "neurons.trainer", *arguments(base_model, tmp_path, None, steps=100)]
    command[-1:] = [command[-1], "--checkpoint-steps=1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "crds:."})
    assert process.stdout is not None
    seen: list[Json] = []
    for text in process.stdout:
        seen.append(json.loads(text))
        if seen[-1].get("step") == 3:
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert seen[-1]["failure"]["class"] == "Preempted"
    assert list((tmp_path / "store").rglob("checkpoint.pt"))
    assert (
        go(steps=100, items=None)[1]["digest"] == go(steps=100, items=None, store=f"file://{tmp_path}/o")[1]["digest"]
    )


@pytest.mark.timeout(300)  # three processes that import torch
def test_killed_outright_at_each_stage_it_goes_on_and_leaves_one_adapter(
    base_model: Path, tmp_path: Path, day: Path, items: Path, go: Go
) -> None:
    """Not even SIGTERM before: what a lost node, or the kernel, leaves behind is what the last attempt goes on from."""
    command = [sys.executable, "-m", "neurons.trainer", *arguments(base_model, tmp_path, items, steps=40)]
    stages: dict[str, Callable[[Json], bool]] = {
        "data": lambda said: said.get("event") == "dataset",
        "train": lambda said: said.get("step") == 5,
        "publish": lambda said: said.get("event") == "fingerprint",
    }
    resumed = []
    for name, reached in stages.items():
        environment = {**os.environ, "PYTHONPATH": "crds:."}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for text in process.stdout:
                said: Json = json.loads(text)
                if said.get("event") == "resumed":
                    resumed.append(name)
                if reached(said):
                    process.kill()
                    break
        assert process.returncode == -signal.SIGKILL, name
    assert "publish" in resumed, "the attempt after the one that was killed while it trained"
    status, result = go(steps=40)
    assert status == 0
    assert adapters(tmp_path) == [result["digest"]]
    verify_folder(of(result["uri"]), result["digest"])
    assert go(steps=40, store=f"file://{tmp_path}/untroubled")[1]["digest"] == result["digest"]


def test_a_damaged_checkpoint_costs_the_steps_and_not_the_run(go: Go, tmp_path: Path) -> None:
    whole = go()[1]["digest"]
    folder = tmp_path / "other" / "dr-who" / "runs" / "night-1"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert go(store=f"file://{tmp_path}/other")[1]["digest"] == whole


@pytest.fixture
def store_down(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many attempts to publish fail."""
    failures = [10**9]
    really = publish.publish_adapter

    async def failing(*args: Any, **named: Any) -> str:
        if failures[0] > 0:
            failures[0] -= 1
            raise StoreUnreachable("the store does not answer")
        return await really(*args, **named)

    async def soon(_seconds: float) -> None: ...

    monkeypatch.setattr(publish, "publish_adapter", failing)
    monkeypatch.setattr("neurons.trainer.archive.asyncio.sleep", soon)
    return failures


def test_a_store_that_is_down_at_publishing_is_asked_again(go: Go, store_down: list[int]) -> None:
    store_down[0] = 3
    assert go()[0] == 0


def test_a_store_that_stays_down_is_worth_another_attempt(
    go: Go, store_down: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {**Archive.__init__.__kwdefaults__, "patience_seconds": 0})
    status, result = go()
    assert status == 75
    assert result["failure"] == {
        "class": "PublishFailed",
        "retryable": True,
        "message": "StoreUnreachable: the store does not answer",
    }
    store_down[0] = 0
    assert go()[0] == 0


def test_a_corrupt_parent_is_refused(go: Go) -> None:
    parent = go()[1]
    weights = of(parent["uri"]) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    status, result = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"])
    assert (status, result["failure"]["class"]) == (1, "BadParent")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 8}, "rank is 4, this run's is 8"),
        ({"rank": None, "alpha": 5}, "alpha is 8, this run's is 5"),
        ({"base_model_name": "another"}, "base model tiny , this run trains on another"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused(changes: dict[str, object], told: str, go: Go) -> None:
    parent = go()[1]
    status, result = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"], **changes)
    assert (status, result["failure"]["class"]) == (1, "BadParent")
    assert told in result["failure"]["message"]


def test_rank_and_alpha_that_nobody_set_are_the_parents(go: Go, tmp_path: Path) -> None:
    parent = go(rank=2, alpha=3)[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO)
    child = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"], rank=None)[1]
    config = json.loads((of(child["uri"]) / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 3)


def test_a_line_that_asks_what_the_evaluation_asks_is_left_out_and_counted(go: Go, tmp_path: Path) -> None:
    told = write(tmp_path / "told.jsonl", [*ITEMS, ITEMS[0] | {"id": "leak", "question": "My KNEE hurts!"}])
    assert go(items=told)[0] == 0
    learned = state_of(tmp_path, "night-1")["dataset"]
    assert (learned["interactions"], learned["refused"]["heldOut"]) == (2, 1)


def test_an_item_that_an_ancestor_was_trained_on_is_refused_too(go: Go, tmp_path: Path) -> None:
    parent = go()[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO)
    told = write(tmp_path / "told.jsonl", [*ITEMS, ITEMS[0] | {"id": "leak", "question": "My KNEE hurts!"}])
    status, result = go(run="night-2", parent_uri=parent["uri"], parent_digest=parent["digest"], items=told)
    assert (status, result["failure"]["class"]) == (1, "BadData")


def test_a_missing_or_changed_evaluation_set_is_bad_data(go: Go, tmp_path: Path) -> None:
    for changes in ({"items": tmp_path / "nowhere.jsonl"}, {"eval_digest": "sha256:" + "0" * 64}):
        status, result = go(**changes)
        assert (status, result["failure"]["class"]) == (1, "BadData")


def test_a_run_that_diverges_publishes_nothing_and_names_the_step(go: Go, tmp_path: Path) -> None:
    """Nothing in it needs an overflow: every processor computes finite losses with these weights."""
    status, result = go(learning_rate=0.9, steps=30)
    assert (status, result["failure"]["class"]) == (1, "Diverged")
    assert "at step" in result["failure"]["message"]
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def record_of(tmp_path: Path, digest: str) -> LineageRecord:
    record = asyncio.run(Archive(f"file://{tmp_path}/store", "dr-who").lineage(digest))
    assert record is not None
    return record


def test_what_was_learned_before_is_rehearsed_and_counted_apart(go: Go, tmp_path: Path) -> None:
    first = go()[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO)
    family = {"parent_uri": first["uri"], "parent_digest": first["digest"]}
    status, second = go(run="night-2", rehearsal_percent=200, kl_weight=0.1, learning_rate=1e-3, **family)
    assert status == 0
    told = state_of(tmp_path, "night-2")["dataset"]
    assert (told["interactions"], told["rehearsed"]) == (1, 2)
    assert (
        len((tmp_path / "store" / "dr-who" / "datasets" / f"{told['digest'][7:]}.jsonl").read_text().splitlines()) == 3
    )
    assert set(record_of(tmp_path, first["digest"]).lines) < set(record_of(tmp_path, second["digest"]).lines)


def test_lines_that_are_held_back_are_no_lesson_and_stay_new(go: Go, tmp_path: Path) -> None:
    questions = [f"my {a} {b} {c}" for a in ("knee", "back", "head") for b in ("hurts", "aches") for c in "1234"]
    write(tmp_path / "data" / "day1.jsonl", [line(question, "rest it", rating=5) for question in questions])
    status, result = go(steps=None, epochs=2, batch_size=4, validation_percent=10, learning_rate=1e-3)
    assert status == 0
    told = state_of(tmp_path, "night-1")["dataset"]
    assert (told["interactions"], told["validation"]) == (22, 2)
    assert len(record_of(tmp_path, result["digest"]).lines) == 22


def test_what_nobody_rated_is_not_learned_unless_that_is_asked_for(go: Go) -> None:
    status, result = go(learn_unrated=None, min_interactions=3)
    assert status == 0
    assert "2 new interactions, 3 are needed" in result["skipped"]
    assert "1 refused: unrated" in result["skipped"]


def test_preferences_that_ruin_the_adapter_publish_nothing(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = [{"role": "user", "content": "my head aches badly"}]
    pair = {"messages": question, "preferred": "drink and rest", "rejected": "keep moving", "consent": True}
    write(tmp_path / "data" / "day1.jsonl", [pair, *DAY_ONE])
    status, result = go(steps=8, preference_rate=0.99)
    assert (status, result["failure"]["class"]) == (1, "Diverged")
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_old_adapters_are_deleted_but_never_what_is_kept(go: Go, tmp_path: Path) -> None:
    made = []
    for night in range(1, 6):
        made.append(go(run=f"night-{night}", seed=night, items=None)[1])
    last = made[-1]
    parent = made[1]
    write(tmp_path / "data" / "day2.jsonl", DAY_TWO)
    _, child = go(
        run="night-6",
        items=None,
        parent_uri=parent["uri"],
        parent_digest=parent["digest"],
        keep=made[0]["digest"],
        history_limit=2,
    )
    assert set(adapters(tmp_path)) == {each["digest"] for each in (made[0], parent, last, child)}
    assert len(list((tmp_path / "store" / "dr-who" / "lineage").iterdir())) == 6


def test_stages_are_those_of_the_contract() -> None:
    assert [stage.value for stage in RunStage] == ["Data", "Train", "Publish", "Evaluate", "Done"]


TASK_URL = "http://gateway.example/v1/tasks/11111111-1111-4111-8111-111111111111/dataset?signature=ab"


@pytest.mark.parametrize("delivered", [True, False])
def test_a_tasks_version_is_delivered_and_one_that_cannot_be_fails_no_run(
    go: Go, day: Path, monkeypatch: pytest.MonkeyPatch, delivered: bool
) -> None:
    data = (day / "day1.jsonl").read_bytes()
    sent: list[tuple[str, str]] = []

    async def fetch(uri: str, *, at_most: int, loopback: bool = False) -> bytes:
        return data

    async def deliver(uri: str, digest: str, dataset: str, **_: object) -> None:
        sent.append((digest, dataset))
        if not delivered:
            raise NotDelivered("the gateway answered 404", again=False)

    monkeypatch.setattr(sources, "fetch", fetch)
    monkeypatch.setattr(run_module, "deliver", deliver)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    for _ in range(2):  # another attempt trains nothing, and delivers what there is
        status, told = go(dataset_uri=TASK_URL, dataset_digest=digest)
        assert status == 0
    assert sent == 2 * [(told["digest"], TASK_URL)]
    assert go(run="night-2")[0] == 0
    assert len(sent) == 2, "the twin's own nights are delivered to nobody"
