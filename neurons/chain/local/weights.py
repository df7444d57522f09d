"""Weights on the local chain: who may set which, commits, and their reveal at the epoch that is due."""

from __future__ import annotations

from typing import Any, Final

from bittensor import timelock

from neurons.chain.local.genesis import COMMIT_REVEAL_VERSION
from neurons.chain.local.sealing import CannotOpen, SealedWeights
from neurons.chain.local.storage import JSON
from neurons.chain.local.subnet import DispatchError, Subnet

U16_MAX: Final = 65535
YUMA_COMMIT_BYTES: Final = 5000
NULL_COMMIT_BYTES: Final = 32 * 1024
"""Rows have up to 2,500 UIDs there. Divided by the number of mechanisms, of which there is one here."""
NULL_QUEUE_BYTES: Final = 64 * 1024
NULL_QUEUE_COMMITS: Final = 64
"""Of all commits of one epoch, under Null consensus."""
MOST_UNREVEALED: Final = 10
"""Commits that one hotkey may have waiting."""


def set_weights(subnet: Subnet, hotkey: str, *, uids: JSON, values: JSON, version_key: int) -> None:
    """Set a validator's row in the open.

    Raises:
        DispatchError: commit-reveal is on, it is too early, or the weights aren't allowed.
    """
    if subnet.hyperparameter("commit_reveal_weights_enabled"):
        raise DispatchError("CommitRevealEnabled", f"subnet {subnet.netuid} takes weights only as commits")
    uid = subnet.uid(hotkey)
    _check_rate(subnet, uid, "SettingWeightsTooFast")
    _put_row(subnet, hotkey, uids=uids, values=values, version_key=version_key)
    subnet.set_entry("LastUpdate", uid, subnet.state.block)


def commit(subnet: Subnet, hotkey: str, *, ciphertext: str, reveal_round: int, version: int) -> None:
    """Take sealed weights, to be revealed at an epoch to come.

    Raises:
        DispatchError: commit-reveal is off, it is too early, or too many wait.
    """
    if not subnet.hyperparameter("commit_reveal_weights_enabled"):
        raise DispatchError("CommitRevealDisabled", f"subnet {subnet.netuid} takes weights in the open")
    if version != COMMIT_REVEAL_VERSION:
        raise DispatchError(
            "IncorrectCommitRevealVersion", f"the chain takes commits of version {COMMIT_REVEAL_VERSION}"
        )
    most = NULL_COMMIT_BYTES if _is_null(subnet) else YUMA_COMMIT_BYTES
    if _size(ciphertext) > most:
        raise DispatchError("CommitPayloadTooLarge", f"a commit has at most {most} bytes on this subnet")
    uid = subnet.uid(hotkey)
    if _is_null(subnet):
        _check_sole_validator(subnet, uid)
    _check_stake(subnet, hotkey)
    _check_rate(subnet, uid, "CommittingWeightsTooFast")
    if sum(who == hotkey for _epoch, waiting in pending(subnet) for who, *_rest in waiting) >= MOST_UNREVEALED:
        raise DispatchError(
            "TooManyUnrevealedCommits", f"{hotkey} has {MOST_UNREVEALED} commits waiting: let them be revealed"
        )
    epoch = int(subnet.get("SubnetEpochIndex"))
    waiting = subnet.get("TimelockedWeightCommits", epoch, default=[])
    if _is_null(subnet):
        waiting = _with_room(subnet, waiting, hotkey, _size(ciphertext))
    waiting.append([hotkey, subnet.state.block, ciphertext, reveal_round])
    subnet.put("TimelockedWeightCommits", epoch, value=waiting)
    subnet.set_entry("LastUpdate", uid, subnet.state.block)


def reveal(subnet: Subnet) -> list[str]:
    """Open what is due in this epoch, drop what is overdue; returns whose weights were revealed.

    A commit of epoch e is due in epoch e + reveal period, in any block of it in which its round is published. One that
    can't be opened, or whose weights aren't allowed by then, is dropped without a word, as on the chain.
    """
    epoch, period = int(subnet.get("SubnetEpochIndex")), int(subnet.hyperparameter("commit_reveal_period"))
    seed = bytes.fromhex(subnet.state.get("Local.SealingSeed"))
    published = timelock.current_round(subnet.state.get("Timestamp.Now") / 1000)
    revealed = []
    for committed, waiting in pending(subnet):
        if committed > epoch - period:
            continue
        unopened = []
        for who, block, ciphertext, reveal_round in waiting if committed == epoch - period else []:
            if reveal_round > published:
                unopened.append([who, block, ciphertext, reveal_round])
                continue
            try:
                sealed = SealedWeights.open(bytes.fromhex(ciphertext.removeprefix("0x")), seed)
                if sealed.hotkey != who:
                    continue
                with subnet.state.attempt():
                    _put_row(subnet, who, uids=sealed.uids, values=sealed.values, version_key=sealed.version_key)
            except (CannotOpen, DispatchError, ValueError):  # the last: no hexadecimal number
                continue
            revealed.append(who)
        if unopened:
            subnet.put("TimelockedWeightCommits", committed, value=unopened)
        else:
            subnet.delete("TimelockedWeightCommits", committed)
    return revealed


def pending(subnet: Subnet) -> list[tuple[int, list[Any]]]:
    """Return (epoch, [[hotkey, block, ciphertext, round], …]) of the commits that wait."""
    return [(int(params[0]), waiting) for params, waiting in subnet.scan("TimelockedWeightCommits")]


def commit_blocks(subnet: Subnet) -> dict[str, int]:
    """Return for each hotkey with commits waiting the block of the earliest."""
    earliest: dict[str, int] = {}
    for _epoch, waiting in pending(subnet):
        for who, block, *_rest in waiting:
            earliest[who] = min(block, earliest.get(who, block))
    return earliest


def _put_row(subnet: Subnet, hotkey: str, *, uids: JSON, values: JSON, version_key: int) -> None:
    """Check weights as the chain does, and store them scaled so that the largest is 65535."""
    if not isinstance(uids, list) or not isinstance(values, list) or len(uids) != len(values):
        raise DispatchError("WeightVecNotEqualSize", "give one weight for each UID")
    uid = subnet.uid(hotkey)
    _check_stake(subnet, hotkey)
    if version_key < int(subnet.hyperparameter("weights_version")):
        wanted = subnet.hyperparameter("weights_version")
        raise DispatchError(
            "IncorrectWeightVersionKey", f"the subnet wants version key {wanted} or newer, not {version_key}"
        )
    own = uids == [uid]
    if _is_null(subnet):
        _check_sole_validator(subnet, uid)
    elif not (own or uid == subnet.owner_uid()) and not subnet.vector("ValidatorPermit")[uid]:
        raise DispatchError(
            "NeuronNoValidatorPermit", f"UID {uid} has no validator permit: it needs more stake than others"
        )
    if len(set(uids)) != len(uids):
        raise DispatchError("DuplicateUids", "each UID may have one weight")
    if not all(isinstance(target, int) and 0 <= target < subnet.n for target in uids):
        raise DispatchError("UidVecContainInvalidOne", f"UIDs are 0 to {subnet.n - 1}")
    if not all(isinstance(value, int) and 0 <= value <= U16_MAX for value in values):
        raise DispatchError("MaxWeightExceeded", f"weights are integers from 0 to {U16_MAX}")
    least = min(int(subnet.hyperparameter("min_allowed_weights")), subnet.n)
    if not own and len(uids) < least:
        raise DispatchError("WeightVecLengthIsLow", f"the subnet wants at least {least} weights, not {len(uids)}")
    limit = int(subnet.hyperparameter("max_weights_limit"))
    if not own and values and max(values) * U16_MAX > limit * sum(values):
        raise DispatchError("MaxWeightExceeded", f"one weight may have at most {limit / U16_MAX:.3f} of their sum")
    top = max(values, default=0)
    scaled = [value * U16_MAX // top if top else 0 for value in values]
    # What is named with 0 is kept, as on the chain: liquid alpha makes a difference of it.
    subnet.put("Weights", uid, value=[[target, value] for target, value in zip(uids, scaled, strict=True)])


def _is_null(subnet: Subnet) -> bool:
    return bool(subnet.hyperparameter("epoch_consensus") == "Null")


def _size(ciphertext: str) -> int:
    """Return how many bytes a commit has; raises ValueError where it is no hexadecimal number."""
    return len(bytes.fromhex(ciphertext.removeprefix("0x")))


def _check_sole_validator(subnet: Subnet, uid: int) -> None:
    """Refuse whoever isn't the one validator of a subnet under Null consensus, the owner and self-weights included."""
    if not subnet.vector("ValidatorPermit")[uid]:
        raise DispatchError(
            "NeuronNoValidatorPermit", f"UID {uid} has no validator permit, which under Null consensus one alone has"
        )


def _with_room(subnet: Subnet, waiting: list[Any], hotkey: str, size: int) -> list[Any]:
    """Return what an epoch's commits are once one of this size has room: who has less stake gives way, least first.

    Under Null consensus alone do they share so much room. Raises DispatchError where all of it is others' with as much
    stake.
    """
    kept, stake = list(waiting), subnet.stake(hotkey)
    smaller = [each for each in waiting if subnet.stake(each[0]) < stake]
    for least in sorted(smaller, key=lambda each: subnet.stake(each[0])):
        if _has_room(kept, size):
            break
        kept.remove(least)
    if not _has_room(kept, size):
        raise DispatchError("CommitQueueFull", "this epoch's commits are as many as may be: wait for the next epoch")
    return kept


def _has_room(waiting: list[Any], size: int) -> bool:
    held = sum(_size(ciphertext) for _who, _block, ciphertext, _round in waiting)
    return len(waiting) < NULL_QUEUE_COMMITS and held + size <= NULL_QUEUE_BYTES


def _check_stake(subnet: Subnet, hotkey: str) -> None:
    threshold = int(subnet.state.get("SubtensorModule.StakeThreshold", default=0))
    if subnet.stake(hotkey) < threshold:
        raise DispatchError("NotEnoughStakeToSetWeights", f"{hotkey} needs a stake of {threshold} rao to set weights")


def _check_rate(subnet: Subnet, uid: int, name: str) -> None:
    limit = int(subnet.hyperparameter("weights_rate_limit"))
    last = int(subnet.vector("LastUpdate")[uid])
    since = subnet.state.block - last
    if last > 0 and since < limit:
        raise DispatchError(name, f"UID {uid} set weights {since} blocks ago: wait until {limit} have passed")
