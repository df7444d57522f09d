"""What every kind's reconciliation stands on: API access, cache, queue, apply, status, events, leadership."""
