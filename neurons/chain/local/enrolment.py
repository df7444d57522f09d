"""Putting a neuron onto a local subnet: registration and stake, signed by its coldkey.

For demos and tests. On the real chain people do this by btcli; no neuron of ours ever has a coldkey.
"""

from __future__ import annotations

import bittensor as bt

from neurons.chain.local.genesis import RAO


async def enrol(
    client: bt.Client, coldkey: bt.sp_core.Keypair, hotkey: str, netuid: int, *, stake_tao: float = 0.0
) -> int:
    """Register a hotkey (an ss58 address) and stake on it; returns its UID.

    The client's substrate must be a local subnet's: the real chain wants registrations shielded.

    Raises:
        bt.ChainError: the chain refuses it.
    """
    call = bt.calls.SubtensorModule.burned_register(netuid=netuid, hotkey=hotkey)
    (await client.submit_call(call, coldkey)).raise_for_failure()
    if stake_tao:
        await stake(client, coldkey, hotkey, netuid, stake_tao)
    return int(await client.read("uid", hotkey_ss58=hotkey, netuid=netuid))


async def stake(client: bt.Client, coldkey: bt.sp_core.Keypair, hotkey: str, netuid: int, stake_tao: float) -> None:
    """Stake on a registered hotkey.

    Raises:
        bt.ChainError: the chain refuses it.
    """
    amount = int(stake_tao * RAO)
    call = bt.calls.SubtensorModule.add_stake(hotkey=hotkey, netuid=netuid, amount_staked=amount)
    (await client.submit_call(call, coldkey)).raise_for_failure()
