"""The chain half of the subnet: metagraph, axon, weights and epochs by the bittensor SDK, and a local subnet for it."""
