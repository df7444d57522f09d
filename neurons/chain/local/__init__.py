"""The local subnet: a durable service that answers what the SDK asks of a chain, so that the same code runs against it."""
