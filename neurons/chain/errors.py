"""What can go wrong with the chain, by what one can do about it.

    ChainError
    ├── Unreachable        no answer, or not in time                              retryable
    │   ├── RateLimited    the endpoint takes no more requests for a while        retryable, see `retry_after`
    │   └── InPool         an earlier extrinsic of ours is on its way             retryable, in the next block
    ├── OtherRuntime       the chain's runtime isn't one that we can read         not retryable: take another release
    ├── NotRegistered      the hotkey has no UID on the subnet                    not retryable: it has to be registered
    │   └── ForeignOwner   the chain says another coldkey owns the hotkey         not retryable: it is another's neuron
    ├── Refused            the chain's rules say no; `name` is the chain's word   not retryable as it is
    │   └── TooEarly       a rate limit that counts blocks                        retryable later
    ├── UnusableAddress    nobody could reach what was to be published            not retryable: take another address
    └── WalletError        the Secret holds no usable hotkey                      not retryable: take another Secret
        └── ColdkeyError   the Secret holds a coldkey                             not retryable: move what that holds

Every message is a sentence that says what is wrong and what to do; none holds key material.
"""

from __future__ import annotations

from typing import ClassVar


class ChainError(Exception):
    """Something that was asked of the chain can't be had; the message says why and what to do."""

    retryable: ClassVar[bool] = False


class Unreachable(ChainError):  # noqa: N818 - what the chain is
    """No answer in time. What was to be written may have been written: look before writing again."""

    retryable = True


class RateLimited(Unreachable):
    """The endpoint refuses further requests for a while."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, if the endpoint said so."""


class InPool(Unreachable):
    """An extrinsic with the same nonce waits for its block, or has just got into one."""


class OtherRuntime(ChainError):  # noqa: N818
    """The chain runs a spec version that we don't know, or answers what we can't read."""


class NotRegistered(ChainError):  # noqa: N818
    """The hotkey has no UID on the subnet, or has another registration than the one meant."""


class ForeignOwner(NotRegistered):
    """The hotkey is registered by another coldkey than ours."""


class Refused(ChainError):  # noqa: N818
    """The chain's rules refuse it."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        """What the chain calls the reason, such as `NeuronNoValidatorPermit`; None if it didn't say."""


class TooEarly(Refused):
    """Not enough blocks have passed since the last time."""

    retryable = True


class UnusableAddress(ChainError):  # noqa: N818
    """An axon at that address could not be reached by anybody else."""


class WalletError(ChainError):
    """There is no hotkey to sign with, or something in its place that must not be here."""


class ColdkeyError(WalletError):
    """The key that would sign, or one beside it, is a coldkey."""
