"""MinerPool: one engine Deployment with agents, a miner in front of it, and what both may do."""
