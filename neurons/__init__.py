"""The data plane: what runs beside and in front of the engines, and what trains their adapters."""
