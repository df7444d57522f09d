"""Benchmarks: `python -m tests.bench [NAME ...]` measures, prints tables and writes JSON and docs/benchmarks.md."""
