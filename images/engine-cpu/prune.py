"""Delete what only a GPU would ever load from a virtual environment that holds PyTorch's CUDA build.

`import torch` needs a part of NVIDIA's libraries on every machine, because libtorch_cuda.so links them. The rest is
opened only once a GPU is used. What the dynamic loader reaches from PyTorch's and vLLM's own libraries stays; every
other file of NVIDIA's packages goes, and so do headers.

    python prune.py VENV
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

# Libraries whose dependencies must stay loadable.
_ROOTS = ("torch/lib/*.so*", "torch/*.so", "torchvision/*.so", "torchaudio/**/*.so", "vllm/*.so")


def _linked(library: Path) -> set[Path]:
    """Return every library that the loader would bring in for `library`."""
    listing = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False).stdout
    return {Path(path).resolve() for path in re.findall(r"=> (/\S+)", listing)}


def prune(site_packages: Path) -> tuple[int, int]:
    """Delete the files and return how many there were and their bytes."""
    roots = [path for pattern in _ROOTS for path in site_packages.glob(pattern)]
    if not roots:
        raise SystemExit(f"{site_packages} holds no PyTorch")
    needed = set().union(*(_linked(root) for root in roots))
    if not any("nvidia" in path.parts for path in needed):
        raise SystemExit("ldd found none of NVIDIA's libraries: is this PyTorch's CUDA build?")
    count = size = 0
    for path in sorted((site_packages / "nvidia").rglob("*")):
        if path.is_file() and path.suffix != ".py" and path.resolve() not in needed:
            count, size = count + 1, size + path.lstat().st_size
            path.unlink()
    for folder in (site_packages / "torch" / "include",):
        shutil.rmtree(folder, ignore_errors=True)
    return count, size


if __name__ == "__main__":
    [venv] = sys.argv[1:]
    [found] = Path(venv).glob("lib/python3*/site-packages")
    removed, freed = prune(found)
    print(f"pruned {removed} files, {freed / 1e6:.0f} MB")  # noqa: T201
