"""What fails because of the machine and not of what was tried on it: memory, and an accelerator."""

import ctypes
import errno
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OutOfMemory(Exception):
    """The device or the machine has too little memory for this configuration."""


WORDS = (
    "out of memory",  # CUDA's, of pinned memory and of what CUDA itself needs too
    "allocate memory",  # the CPU allocator's, and the system's name of ENOMEM
    "std::bad_alloc",
    "can't start new thread",  # Python's, which has no room for its stack
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # it found no room for its workspace
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN's, none fitting in what is left
)
"""Parts of the messages of RuntimeErrors that say "no memory" and have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS):
        return True
    return isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError)


def is_of_accelerator(error: BaseException) -> bool:
    """Whether an error is an accelerator's own, after which a process may not get it back."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def is_of_machine(error: BaseException) -> bool:
    """Whether an error may not be taken for one of a file's or a model's: the machine has it."""
    return is_out_of_memory(error) or is_of_accelerator(error)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn every way of saying "no memory" into OutOfMemory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(str(error).splitlines()[0] if str(error) else "no memory") from error


def has_lost_accelerator() -> bool:
    """Whether this process has used a GPU that takes no more work from it, whoever noticed."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def give_memory_back() -> None:
    """Return to the system what this process has freed: glibc keeps it, in ever more places as
    threads come and go, and Python keeps a detector, whose parts refer to each other, for long."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
