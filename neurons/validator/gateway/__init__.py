"""The gateway: a patient asks, several miners answer, the best answer is given with its receipt (docs/gateway.md).

It serves on while the chain, the ledger or most miners are away, and gives no words that no miner has signed, but for
the notice of an emergency and sentences that say plainly that nobody answered.
"""
