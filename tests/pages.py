"""The commands of the documentation's pages, and a reader's terminal to run them in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bittensor_core

from localcluster import Cluster
from tests.conftest import ROOT
from tests.unit.receipts.keyring import COLDKEY, key
from tests.unit.receipts.keyring import MINER as MINER_HOTKEY
from tests.unit.receipts.keyring import OTHER_MINER as VALIDATOR_HOTKEY
from tests.unit.receipts.keyring import VALIDATOR as OWNER_HOTKEY

OWNER_COLDKEY = key("Owner")
"""Not the miner's: the chain withholds what its owner's own miners would get."""
SUBNET, RECEIPTS, STAGING = "subnet.md", "receipts.md", "running_on_staging.md"
PAGES = (SUBNET, RECEIPTS, STAGING, "running_on_testnet.md", "running_on_mainnet.md")


def commands(page: str) -> list[str]:
    """Return the page's commands: lines of `sh` blocks, and those behind `$ ` in blocks that show output, too."""
    found: list[str] = []
    for kind, block in re.findall(
        r"^```(\w*)\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE
    ):
        lines = iter(block.splitlines())
        for line in lines:
            if kind != "sh" and not (kind == "" and line.startswith("$ ")):
                continue
            command = line.removeprefix("$ ")
            while command.endswith("\\"):
                command = f"{command}\n{next(lines)}"
            if (end := re.search(r"<<'(\w+)'", command)) is not None:
                while not command.endswith(f"\n{end[1]}"):
                    command = f"{command}\n{next(lines)}"
            found.append(command)
    return found


def the(page: str, beginning: str) -> str:
    """Return the one command that begins so."""
    (found,) = {each for each in commands(page) if each.startswith(beginning)}
    return found


def of(beginning: str, *pages: str) -> list[str]:
    return [each for page in pages for each in commands(page) if each.startswith(beginning)]


@dataclass(frozen=True)
class Desk:
    """A reader's terminal: a folder, a home with wallets, the project's programs, kubectl and helm."""

    home: Path
    kubeconfig: Path | None = None
    """None: one that isn't there, for commands that need no cluster."""

    @classmethod
    def furnished(cls, home: Path, kubeconfig: Path | None = None) -> Desk:
        """Put the wallets into the home that the pages speak of, and the charts beside them."""
        (home / "charts").symlink_to(ROOT / "charts")
        for wallet, hotkeys in (
            ("clinic", ["miner", "validator"]),
            ("miner", ["default"]),
            ("validator", ["default"]),
            ("W", ["H"]),
        ):
            folder = home / ".bittensor" / "wallets" / wallet
            (folder / "hotkeys").mkdir(parents=True)
            hotkey = VALIDATOR_HOTKEY if wallet == "validator" else MINER_HOTKEY
            for name in hotkeys:
                (folder / "hotkeys" / name).write_bytes(
                    bytes(bittensor_core.serialized_keypair_to_keyfile_data(hotkey))
                )
            (folder / "coldkey").write_bytes(bytes(bittensor_core.serialized_keypair_to_keyfile_data(COLDKEY)))
        return cls(home, kubeconfig)

    def environment(self) -> dict[str, str]:
        path = [
            str(Path(sys.executable).parent),
            *(str(Cluster("test").bin(each).parent) for each in ("kubectl", "helm")),
        ]
        return {
            "PATH": ":".join([*path, os.environ["PATH"]]), "HOME": str(self.home), "COLUMNS": "80",
            "PYTHONPATH": ":".join(str(ROOT / each) for each in ("", "cli", "crds", "operator")),
            "KUBECONFIG": str(self.kubeconfig or self.home / "none"),
        }  # fmt: skip

    def run(self, command: str, *, status: int = 0, seconds: float = 100, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.home, env=self.environment() | more, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


def with_owner(command: str) -> str:
    coldkey, hotkey = OWNER_COLDKEY.ss58_address, OWNER_HOTKEY.ss58_address
    return re.sub(
        r"(owner[.-]coldkey[ =])5…", rf"\g<1>{coldkey}", re.sub(r"(owner[.-]hotkey[ =])5…", rf"\g<1>{hotkey}", command)
    )
