"""The wire between validators and miners: btauth/1 on every call, and the miner's signed announcement.

`import neurons.wire.NAME` what is needed: the package itself loads nothing, since the SDK takes seconds to load and a
miner without a wallet never needs it.
"""
