"""What of the gateway the pages use."""

from __future__ import annotations

from dataclasses import dataclass

from neurons.ledger import Ledger, QueuedLedger, Recorder
from neurons.validator.gateway.chat import Chats
from neurons.validator.gateway.feedback import Feedback
from neurons.validator.gateway.keys import Keyring
from neurons.validator.gateway.notices import Notices
from neurons.validator.gateway.recording import Recording, Scrubber
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.sessions import Sessions
from neurons.validator.gateway.standing import Standings
from neurons.validator.gateway.twins import Twins


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts of one running gateway."""

    chats: Chats
    feedback: Feedback
    sessions: Sessions
    notices: Notices
    recording: Recording
    recorder: Recorder | None
    """None: nothing is kept."""
    twins: Twins
    roster: Roster
    standings: Standings
    keyring: Keyring
    scrub: Scrubber | None

    @property
    def ledger(self) -> Ledger | None:
        """What a doctor's pages read; None where nothing is kept."""
        if isinstance(self.recorder, QueuedLedger):
            return self.recorder.ledger
        return self.recorder if isinstance(self.recorder, Ledger) else None
