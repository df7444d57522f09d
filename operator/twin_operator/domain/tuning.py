"""How engines are started for the adapters that they must hold: a pure decision, explained in words.

What a pool's spec fixes is done as it says. What it leaves to Auto follows the adapters, and since another value
restarts the engines (2 to 4 minutes each on a GPU), it changes only

- when the engines are replaced anyway: then all that fits better is taken;
- when engines *lack* something that their adapters need, which a worse fit in the other direction is not: too few
  slots for the twins in use, too little room in memory, too low a rank, or modules that they don't wrap. That must have
  stood for `DWELL`, and is done once in `INTERVAL` at most. Where no engine is ready, nothing is lost: it is done at
  once.

So it can't flap. Restarts for this alone only ever add: slots go up a ladder of four steps, ranks one of five, memory
doubles, and once all linear layers are wrapped they stay so. What is more than is needed is taken back only by a
replacement that somebody else asked for, and slots only when a quarter of them would do.

Why these values: docs/tuning.md, with the measured table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.miner_pool import LORA_RANKS, MAX_TUNING_MESSAGE, Engine, EngineTuning, TuningStatus
from twin_operator.domain.engine_flags import AT_HAND, number, sequences
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding
from twin_operator.engine.times import moment, timestamp

DWELL: Final = timedelta(minutes=10)
"""So long engines must have lacked something before they are restarted for it."""
INTERVAL: Final = timedelta(hours=24)
"""So far apart such restarts are, at least."""
MEASURED: Final = timedelta(hours=24)
"""So long the twins in use must have been counted before fewer of them than are held decide."""
REMEMBERED: Final = timedelta(days=7)
"""So long the most twins that were in use count."""
LEAST_SLOTS: Final = 8
MOST_SLOTS: Final = 64
"""Nothing beyond was measured."""
LEAST_AT_HAND: Final = 64
"""What `--max-cpu-loras` is at least where nobody sets it."""
LEAST_RANK: Final = 16
"""The trainer's own: the next fine-tune's adapter has it."""
_EAGER: Final = re.compile(r"--enforce[-_]eager(=true)?$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the pod needs that holds most."""

    adapters: int = 0
    """Versions that it holds."""
    twins: int = 0
    """Twins with an adapter that it answers for."""
    in_use: int | None = None
    """Those of them that were asked within the last minutes; None: not measured."""
    rank: int = 0
    """The highest of the adapters' ranks."""
    beyond: int = 0
    """Adapters that change other modules than attention's."""
    unread: int = 0
    """Adapters of which no agent has said yet what they change."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is remembered from one decision to the next; the pool's status keeps it."""

    short_since: datetime | None = None
    restarted: datetime | None = None
    most_slots: int | None = None
    """Engines with more ended before they were ready."""
    most_slots_generation: int | None = None
    in_use: int | None = None
    """The most twins that were in use at once, within `REMEMBERED`."""
    in_use_at: datetime | None = None
    measured_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Engines:
    """What is known of the engines that run."""

    running: EngineTuning | None
    """None: there are none, or nothing tells."""
    unready: bool = False
    """None of them answers, or a replacement is under way."""
    broken: bool = False
    """Engines that are being brought up end by themselves."""
    replaced: bool = False
    """They are replaced for another reason."""
    as_asked: bool = False
    """They were made from the pool's spec as it is now, though its generation may be another: it was scaled, say."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How engines are to be started."""

    tuning: EngineTuning
    """With this, now."""
    wanted: EngineTuning
    """This fits best."""
    lacks: tuple[str, ...]
    """What the engines that run lack, in words."""
    why: str
    """From what it was decided."""
    memory: Memory
    due: datetime | None = None
    """When engines are restarted for what they lack."""
    restarts: bool = False
    """Engines are to be restarted for what they lack, now."""


def decide(spec: Engine, needs: Needs, engines: Engines, memory: Memory, *, generation: int, now: datetime) -> Decision:
    """Return how engines of this spec are to be started. `now` is in UTC."""
    memory = _remembered(memory, needs, engines, generation=generation, now=now)
    in_use = _in_use(needs, memory, now)
    running = engines.running
    wanted = _wanted(spec, needs, running, in_use=in_use, memory=memory)
    why = _why(spec, needs, in_use=in_use, memory=memory, now=now)
    if running is None:
        return Decision(tuning=wanted, wanted=wanted, lacks=(), why=why, memory=replace(memory, short_since=None))
    kept = _as_fixed(spec, running, wanted)
    lacks = _lacks(spec, kept, wanted, needs, in_use=in_use)
    memory = replace(memory, short_since=(memory.short_since or now) if lacks else None)
    made = Decision(tuning=kept, wanted=wanted, lacks=lacks, why=why, memory=memory)
    if engines.replaced:
        return replace(made, tuning=wanted)
    if engines.unready:
        too_many = memory.most_slots is not None and kept.max_loras > memory.most_slots
        grown = _grown(kept, wanted, fewer_slots=too_many)
        return replace(made, tuning=grown, restarts=True) if lacks or too_many else made
    return _in_time(made, now)


def _in_time(made: Decision, now: datetime) -> Decision:
    """Return the decision with when engines that are in use are restarted for what they lack."""
    memory = made.memory
    if memory.short_since is None:
        return made
    due = memory.short_since + DWELL
    if memory.restarted is not None:
        due = max(due, memory.restarted + INTERVAL)
    if now < due:
        return replace(made, due=due)
    return replace(made, tuning=_grown(made.tuning, made.wanted), due=due, restarts=True)


def specializes(spec: Engine) -> bool:
    """Tell whether kernels are to be sized by a batch's adapters: it is done by CUDA graphs, which must be on."""
    return spec.device == "GPU" and not any(_EAGER.match(each) for each in spec.args or [])


def tuning_finding(decision: Decision, *, held: str | None) -> tuple[Finding, bool]:
    """Return what the condition EnginesTuned says, and whether it is True; `held`: why their update waits."""
    if decision.lacks:
        if held is not None:
            when = f"the restart waits: {held}"
        elif decision.due is not None and not decision.restarts:
            when = f"they are restarted for it at {timestamp(decision.due)}, or when they are replaced before"
        else:
            when = "they are being replaced for it"
        return Finding(Reason.TUNING_AWAITED, f"{'; '.join(decision.lacks)}; {when}"[:MAX_TUNING_MESSAGE]), False
    return Finding(Reason.TUNED, _tuned(decision)[:MAX_TUNING_MESSAGE]), True


def tuning_status(decision: Decision, *, said: str) -> TuningStatus:
    """Return what the pool's status says; `said` is the condition's sentence."""
    memory = decision.memory
    return TuningStatus(
        running=decision.tuning, wanted=None if decision.wanted == decision.tuning else decision.wanted,
        message=said, short_since=_stamp(memory.short_since), restart_time=_stamp(memory.restarted),
        most_loras=memory.most_slots, most_loras_generation=memory.most_slots_generation,
        in_use=memory.in_use, in_use_time=_stamp(memory.in_use_at), measured_since=_stamp(memory.measured_since),
    )  # fmt: skip


def memory_of(status: TuningStatus | None) -> Memory:
    """Return what a status remembers."""
    if status is None:
        return Memory()
    return Memory(
        short_since=_time(status.short_since), restarted=_time(status.restart_time), most_slots=status.most_loras,
        most_slots_generation=status.most_loras_generation, in_use=status.in_use, in_use_at=_time(status.in_use_time),
        measured_since=_time(status.measured_since),
    )  # fmt: skip


# -- what fits


def _wanted(spec: Engine, needs: Needs, running: EngineTuning | None, *, in_use: int, memory: Memory) -> EngineTuning:
    slots = _slots(spec, running, in_use=in_use, most=memory.most_slots)
    at_hand = own_at_hand(spec) or max(LEAST_AT_HAND, _power_of_two(max(needs.adapters, slots)))
    return EngineTuning(
        max_loras=slots,
        max_cpu_loras=at_hand,
        max_lora_rank=_rank(spec, needs),
        lora_targets=_targets(spec, needs, running),
        specialize_active_lora=specializes(spec),
    )


def _slots(spec: Engine, running: EngineTuning | None, *, in_use: int, most: int | None) -> int:
    if spec.max_loras != "Auto":
        return int(spec.max_loras)
    if spec.device == "CPU":  # where nothing was measured
        return LEAST_SLOTS
    # A batch holds no more adapters than requests.
    top = min(most or MOST_SLOTS, MOST_SLOTS, own_at_hand(spec) or MOST_SLOTS, sequences(spec))
    fits = min(top, max(LEAST_SLOTS, _power_of_two(in_use)))
    if running is None or running.max_loras > top or fits >= running.max_loras:
        return fits
    return fits if 4 * in_use <= running.max_loras else running.max_loras


def own_at_hand(spec: Engine) -> int | None:
    """Return the `--max-cpu-loras` of the spec's own arguments, who know the pod's memory better; None where they have
    none that can be read.
    """
    return number(spec, AT_HAND)


def _rank(spec: Engine, needs: Needs) -> int:
    if spec.max_lora_rank != "Auto":
        return int(spec.max_lora_rank)
    return next((rank for rank in LORA_RANKS if rank >= max(LEAST_RANK, needs.rank)), LORA_RANKS[-1])


def _targets(spec: Engine, needs: Needs, running: EngineTuning | None) -> LoraTargets:
    if spec.lora_targets != "Auto":
        return LoraTargets(spec.lora_targets)
    if needs.beyond:
        return LoraTargets.ALL_LINEAR
    if needs.adapters == 0 or needs.unread:  # it can't be told yet
        return running.lora_targets if running is not None else LoraTargets.ALL_LINEAR
    return LoraTargets.ATTENTION


def _as_fixed(spec: Engine, running: EngineTuning, wanted: EngineTuning) -> EngineTuning:
    """Return what runs, with what is not Auto's to decide as it should be."""
    slots = running.max_loras if spec.max_loras == "Auto" and spec.device == "GPU" else wanted.max_loras
    return EngineTuning(
        max_loras=slots,
        # vLLM takes none below the slots.
        max_cpu_loras=own_at_hand(spec) or max(running.max_cpu_loras, slots),
        max_lora_rank=running.max_lora_rank if spec.max_lora_rank == "Auto" else wanted.max_lora_rank,
        lora_targets=running.lora_targets if spec.lora_targets == "Auto" else wanted.lora_targets,
        specialize_active_lora=wanted.specialize_active_lora,
    )


def _grown(kept: EngineTuning, wanted: EngineTuning, *, fewer_slots: bool = False) -> EngineTuning:
    """Return the larger of both in everything, so that a restart for what is lacking takes nothing away."""
    slots = wanted.max_loras if fewer_slots else max(kept.max_loras, wanted.max_loras)
    wide = LoraTargets.ALL_LINEAR in (kept.lora_targets, wanted.lora_targets)
    return EngineTuning(
        max_loras=slots,
        max_cpu_loras=max(kept.max_cpu_loras, wanted.max_cpu_loras),
        max_lora_rank=max(kept.max_lora_rank, wanted.max_lora_rank),
        lora_targets=LoraTargets.ALL_LINEAR if wide else LoraTargets.ATTENTION,
        specialize_active_lora=wanted.specialize_active_lora,
    )


def _lacks(spec: Engine, kept: EngineTuning, wanted: EngineTuning, needs: Needs, *, in_use: int) -> tuple[str, ...]:
    found = []
    if wanted.max_loras > kept.max_loras:
        found.append(f"{in_use} twins share {kept.max_loras} LoRA slots, {wanted.max_loras} would do")
    if needs.adapters > 2 * kept.max_cpu_loras and own_at_hand(spec) is None:
        found.append(
            f"engines keep {kept.max_cpu_loras} adapters in memory and hold {needs.adapters}: the others are read from "
            "disk when they are asked"
        )
    if wanted.max_lora_rank > kept.max_lora_rank:
        found.append(f"an adapter has rank {needs.rank}, the engines were started for {kept.max_lora_rank}")
    if spec.lora_targets == "Auto" and needs.beyond and kept.lora_targets is LoraTargets.ATTENTION:
        number = "1 adapter changes" if needs.beyond == 1 else f"{needs.beyond} adapters change"
        found.append(f"{number} other modules than attention's, which is all that the engines wrap")
    return tuple(found)


def _power_of_two(number: int) -> int:
    return 1 << (max(number, 1) - 1).bit_length()


# -- what is remembered


def _remembered(memory: Memory, needs: Needs, engines: Engines, *, generation: int, now: datetime) -> Memory:
    if memory.most_slots is not None and memory.most_slots_generation != generation:
        holds = engines.as_asked
        memory = replace(
            memory,
            most_slots=memory.most_slots if holds else None,
            most_slots_generation=generation if holds else None,
        )
    running = engines.running
    if engines.broken and running is not None and running.max_loras > LEAST_SLOTS:
        fewer = max(LEAST_SLOTS, running.max_loras // 2)
        memory = replace(memory, most_slots=min(memory.most_slots or fewer, fewer), most_slots_generation=generation)
    if needs.in_use is None:
        return memory
    memory = replace(memory, measured_since=memory.measured_since or now)
    age = now - memory.in_use_at if memory.in_use_at is not None else REMEMBERED
    is_more = memory.in_use is None or needs.in_use > memory.in_use
    again = needs.in_use == memory.in_use and age >= timedelta(days=1)  # so that it is written once a day
    if is_more or again or age >= REMEMBERED:
        return replace(memory, in_use=needs.in_use, in_use_at=now)
    return memory


def _is_measured(memory: Memory, now: datetime) -> bool:
    return memory.in_use is not None and memory.measured_since is not None and now - memory.measured_since >= MEASURED


def _in_use(needs: Needs, memory: Memory, now: datetime) -> int:
    """Return how many twins may want a slot at once: all that are held, unless fewer were seen for long enough."""
    return min(needs.twins, memory.in_use or 0) if _is_measured(memory, now) else needs.twins


# -- words


def _why(spec: Engine, needs: Needs, *, in_use: int, memory: Memory, now: datetime) -> str:
    used = f", of which {in_use} were in use at once within a week" if _is_measured(memory, now) else ""
    rank = f" of rank {needs.rank} at most" if needs.rank else ""
    said = f"a pod holds up to {needs.adapters} adapters{rank}, of {needs.twins} twins{used}"
    if spec.lora_targets == "Auto" and needs.adapters:
        parts = [f"{needs.beyond} change other modules than attention's"] if needs.beyond else []
        parts += [f"of {needs.unread} it isn't known what they change"] if needs.unread else []
        said += f"; {' and '.join(parts) or 'all change attention alone'}"
    if memory.most_slots is not None and spec.max_loras == "Auto":
        said += (
            f"; engines with more than {memory.most_slots} slots ended before they were ready, so there are no more "
            "until the spec of the engines changes"
        )
    return said


def _tuned(decision: Decision) -> str:
    better = [
        f"{name} {after} instead of {before}"
        for name, before, after in zip(_FLAGS, _shown(decision.tuning), _shown(decision.wanted), strict=True)
        if before != after
    ]
    later = f"; from the next restart on {', '.join(better)}" if better else ""
    now = ", ".join(f"{name} {value}" for name, value in zip(_FLAGS, _shown(decision.tuning), strict=True))
    return f"engines are started with {now}: {decision.why}{later}"


_FLAGS: Final = ("max-loras", "max-cpu-loras", "max-lora-rank", "LoRA on", "specialize-active-lora")


def _shown(tuning: EngineTuning) -> tuple[str, ...]:
    attention = tuning.lora_targets is LoraTargets.ATTENTION
    return (
        str(tuning.max_loras), str(tuning.max_cpu_loras), str(tuning.max_lora_rank),
        "attention alone" if attention else "all linear layers", "on" if tuning.specialize_active_lora else "off",
    )  # fmt: skip


def _stamp(time: datetime | None) -> str | None:
    return timestamp(time) if time is not None else None


def _time(text: str | None) -> datetime | None:
    return moment(text) if text else None
