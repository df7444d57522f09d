"""Ids are random UUIDs, and no process gives out another's."""

from __future__ import annotations

import subprocess
import sys
import uuid

from neurons.ledger import new_id

_FORKED = """
import os
from neurons.entropy import random_bytes
random_bytes()
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, random_bytes())
    os._exit(0)
os.wait()
assert os.read(reader, 16) != random_bytes()
"""


def test_ids_are_random_uuids_each_once() -> None:
    made = [new_id() for _ in range(5000)]
    assert len(set(made)) == len(made)
    for each in made:
        read = uuid.UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, uuid.RFC_4122)
    for place in {*range(36)} - {8, 13, 14, 18, 19, 23}:
        assert {each[place] for each in made} == set("0123456789abcdef")
    assert {each[19] for each in made} == set("89ab")


def test_a_forked_process_goes_on_by_bytes_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", _FORKED], check=True, timeout=60)
