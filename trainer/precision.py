"""The device of a trial, and the number format of its forward pass."""

import os

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Torch's type of each precision."""
ISA_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of ONEDNN_MAX_CPU_ISA at which oneDNN emulates bf16 in fp32, several times slower."""


def default_device() -> torch.device:
    """The device that a trial trains on: the first visible GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(wanted: str) -> str:
    """`auto` as the fastest of fp32, bf16 and fp16 that the hardware of this machine supports."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions, and oneDNN may use them."""
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISA_WITHOUT_BF16:
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a forward pass.

    It also sets, for the process, that convolutions in fp32 are not rounded to TF32 on a GPU.
    PyTorch's default rounds them.
    """
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
