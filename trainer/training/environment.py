"""What the bits of a result depend on besides its inputs: hardware, CPU threads, code."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

DIGESTED_PACKAGES = ("torch", "torchvision", "timm", "pillow", "numpy", "hotcoco")
"""Packages whose version is part of the environment."""


def environment(device: torch.device) -> dict[str, str]:
    """The environment of this process by name: `hardware`, `threads`, `code`, and each package.

    Equal inputs in an equal environment give equal bits.
    """
    return {
        "hardware": _hardware(device),
        "threads": str(torch.get_num_threads()) if device.type == "cpu" else "",
        "code": _code_digest(),
        **{name: version(name) for name in DIGESTED_PACKAGES},
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # torch chooses its kernels by the instruction sets and the cache sizes of a CPU
    capabilities = torch.cpu.get_capabilities()
    deciding = {k: v for k, v in capabilities.items() if not k.startswith("num_")}
    content = json.dumps(deciding, sort_keys=True).encode()
    return f"{torch.backends.cpu.get_cpu_capability()} {hashlib.sha256(content).hexdigest()[:8]}"


@cache
def _code_digest() -> str:
    """Digest of the source files of the `trainer` package."""
    total = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]
