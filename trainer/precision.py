"""Arithmetic of the forward pass: what the hardware has natively, resolved once a search."""

import os

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ISA_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of oneDNN's ONEDNN_MAX_CPU_ISA under which it computes bf16 in fp32, several times slower.
"""


def device() -> torch.device:
    """The device a trial trains on: the first visible GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(wanted: str) -> str:
    """`auto` as one of fp32, bf16 and fp16: the fastest that this machine has in hardware."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions and oneDNN may use them."""
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISA_WITHOUT_BF16:
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def autocast(where: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass; also of the process from now on, that in fp32 a GPU's
    convolutions are not rounded to TF32, which is PyTorch's default."""
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    dtype = DTYPES[precision]
    return torch.autocast(where.type, dtype=dtype, enabled=dtype is not torch.float32)
