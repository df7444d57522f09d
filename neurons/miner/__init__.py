"""The miner: a pool's public, OpenAI-compatible endpoint.

It maps a twin to one of its versions by weight, sends the request to an engine pod that holds that version's verified
adapter, and says in the answer which adapter gave it. Everything it knows comes from routing slices and pods' reports,
and it keeps the last known state when the API server is away: serving never depends on the control plane.
"""
