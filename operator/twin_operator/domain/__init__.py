"""What should be, decided by pure functions of plain values: no clock, no randomness, no I/O, no Kubernetes API."""
