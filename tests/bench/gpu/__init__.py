"""Benchmarks that need a GPU, and made-up weights of real shapes: what is measured is speed, not answers.

`python -m tests.bench.gpu.tuning --out DIR` asks twins of engines that are started in several ways. On a host that
reaches no package registry vLLM is brought by hand first; docs/tuning.md has the commands. `--standin` puts the
stand-in in vLLM's place, to try the script itself without a GPU.
"""
