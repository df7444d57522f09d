"""`kubectl twin`: ask doctors' twins, list them, and see why one does not answer."""
