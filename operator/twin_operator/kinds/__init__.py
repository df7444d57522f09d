"""One package per custom resource: what it should become, and how it is."""
