"""Device and precision: `auto` is resolved to what the hardware supports."""

import pytest
import torch

from trainer.precision import DTYPES, autocast, resolve_precision
from trainer.precision import default_device as default_device


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_a_precision_by_name_is_not_changed(wanted: str) -> None:
    assert resolve_precision(wanted) == wanted


def test_auto_is_resolved_once() -> None:
    resolved = resolve_precision("auto")
    assert resolved in DTYPES
    assert resolve_precision(resolved) == resolved == resolve_precision("auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("isa", "resolved"),
    [("AVX2", "fp32"), ("avx512_core", "fp32"), ("AVX512_CORE_BF16", "bf16"), ("ALL", "bf16")],
)
def test_auto_respects_the_instructions_that_onednn_may_use(
    isa: str, resolved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert resolve_precision("auto") == resolved


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_matrix_products_have_the_precision(precision: str, dtype: torch.dtype) -> None:
    ones = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (ones @ ones).dtype is dtype


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_fp32_is_not_rounded_to_tf32(precision: str, allowed: bool) -> None:
    with autocast(torch.device("cpu"), precision):
        assert torch.backends.cudnn.allow_tf32 is allowed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_device_is_the_cpu() -> None:
    assert default_device() == torch.device("cpu")
