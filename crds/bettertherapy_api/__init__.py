"""Public types of the bettertherapy.io API and the contracts between operator, agent, miner and trainer."""
