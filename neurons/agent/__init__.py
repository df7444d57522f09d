"""The sidecar beside each vLLM: brings the pool's adapters in, proves them, and is the pod's only door."""
