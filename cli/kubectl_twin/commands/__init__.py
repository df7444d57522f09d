"""The commands, a module per topic. Each is one function: what it does lives in the modules beside this package."""
