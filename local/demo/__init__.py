"""The demo: two doctors' twins answer a question on a real cluster, from one command."""
