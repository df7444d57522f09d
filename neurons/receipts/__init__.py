"""Receipts: the miner signs which weights answered which question with which words, and anybody can check it offline.

The format is documented in `docs/receipts.md`. Signing and checking load `bittensor_core` only, never the SDK.
"""

from neurons.receipts.canonical import NotCanonicalError, canonical, parse_canonical, sha256
from neurons.receipts.digests import (
    answer_of,
    question_of_input,
    question_of_messages,
    question_of_prompt,
    question_of_text,
)
from neurons.receipts.keys import Keypair, is_signed_by, scheme_of
from neurons.receipts.metagraph import Metagraph, Neuron, neuron_of
from neurons.receipts.metagraph_file import (
    MetagraphFile,
    MetagraphFileError,
    NeuronEntry,
    read_metagraph,
    write_metagraph,
)
from neurons.receipts.receipt import BaseModelNamed, Receipt, ReceiptError, ReceiptSigner, decode
from neurons.receipts.verification import Check, Expected, Outcome, proves, verify

__all__ = [
    "BaseModelNamed",
    "Check",
    "Expected",
    "Keypair",
    "Metagraph",
    "MetagraphFile",
    "MetagraphFileError",
    "Neuron",
    "NeuronEntry",
    "NotCanonicalError",
    "Outcome",
    "Receipt",
    "ReceiptError",
    "ReceiptSigner",
    "answer_of",
    "canonical",
    "decode",
    "is_signed_by",
    "neuron_of",
    "parse_canonical",
    "proves",
    "question_of_input",
    "question_of_messages",
    "question_of_prompt",
    "question_of_text",
    "read_metagraph",
    "scheme_of",
    "sha256",
    "verify",
    "write_metagraph",
]
