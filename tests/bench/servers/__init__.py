"""The servers that the proxy benchmark runs, each a process of its own."""
