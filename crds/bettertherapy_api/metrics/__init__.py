"""The metrics contract: every series that a process of ours exposes, and every series of others that we read.

    from bettertherapy_api.metrics import miner

    Collectors(registry, of=Process.MINER).counter(miner.REQUESTS)    # what exposes makes its collectors from it
    f"sum by (twin) (rate({miner.REQUESTS.name}[5m]))"                # what reads takes the names from it

One module a process, `contract` all of them. docs/metrics.md is made from here.
"""
