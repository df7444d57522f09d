"""The local subnet: a durable service that answers what the SDK asks of a chain, for the same code."""
