"""Errors of the machine are distinguished from errors of a file or a model."""

import errno

import pytest
import torch

from trainer.machine_errors import (
    OutOfMemoryError,
    as_out_of_memory,
    has_lost_accelerator,
    is_accelerator_error,
    is_machine_error,
    is_out_of_memory,
    release_memory,
)

NO_MEMORY: list[Exception] = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    OutOfMemoryError("no memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    torch.AcceleratorError("CUDA error: out of memory"),
    *map(
        RuntimeError,
        (
            "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)",
            "unable to mmap 1024 bytes from file <a.pth>: Cannot allocate memory (12)",
            "can't start new thread",
            "std::bad_alloc",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
            "GET was unable to find an engine to execute this computation",
        ),
    ),
]
OTHERS: list[Exception] = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("out of memory"),  # the name of a class, for example
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    KeyError("memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_every_text_of_too_little_memory_is_recognized(error: Exception) -> None:
    assert is_out_of_memory(error) and is_machine_error(error) and not is_accelerator_error(error)
    with pytest.raises(OutOfMemoryError), as_out_of_memory():
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert is_machine_error(error) is is_accelerator_error(error)
    assert is_accelerator_error(error) is isinstance(error, torch.AcceleratorError)
    with pytest.raises(type(error)) as raised, as_out_of_memory():
        raise error
    assert raised.value is error


def test_the_first_line_of_the_message_is_kept() -> None:
    with pytest.raises(OutOfMemoryError, match=r"^std::bad_alloc$"), as_out_of_memory():
        raise RuntimeError("std::bad_alloc\nand pages more")


def test_an_accelerator_that_accepts_no_work_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_lost_accelerator()  # no GPU was used
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not has_lost_accelerator()

    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert has_lost_accelerator()


def test_objects_that_refer_to_themselves_are_freed() -> None:
    class Part:
        part: "Part"
        ended: list[bool]

        def __del__(self) -> None:
            self.ended.append(True)

    part = Part()
    ended: list[bool] = []
    part.part, part.ended = part, ended
    del part
    release_memory()
    assert ended
