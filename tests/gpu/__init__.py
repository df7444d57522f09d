"""The real thing on a real GPU: no Kubernetes, but our own processes and the real vLLM, measured.

`python -m tests.gpu.serving --model DIR --adapters DIR --out DIR` runs agent and miner before a vLLM. It needs one GPU
and vLLM ≥ 0.26 for the same interpreter, and no network. `--standin` puts the stand-in in vLLM's place, to try the
script itself without a GPU. `python -m tests.gpu.chains` trains many twins' adapters there, `tests.gpu.robustness`
brings bad ones among them, changes twins and kills engines, and `tests.gpu.kernels` asks on quantized base models
(`tests.gpu.quantize`) whose weights answer. `python -m tests.gpu.reproduction` tells whether the same seed trains the
same adapter there (torch, transformers and peft), `python -m tests.gpu.several` how fast a training on several GPUs is,
`python -m tests.gpu.many_runs` what one trainer and one examiner of many twins spare, `python -m tests.gpu.together`,
in three minutes and as lines of JSON, what trainings take of a GPU's memory and leave to one another. Other results are
written after each part, as the JSON of `tests.bench.results`.
"""
