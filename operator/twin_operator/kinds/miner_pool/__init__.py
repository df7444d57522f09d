"""MinerPool: one engine Deployment with agents, a miner in front of it, and the routing table between them."""
