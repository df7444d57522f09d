"""Validator: the gateway that patients ask, told which twins it answers for, and the tables of its ledger."""
