"""Errors of the machine, not of a file or a model: too little memory, or a failed accelerator."""

import ctypes
import errno
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OutOfMemoryError(Exception):
    """This configuration needs more memory than the device or the machine has."""


OUT_OF_MEMORY_MESSAGES = (
    "out of memory",  # CUDA, also for pinned memory and its context
    "allocate memory",  # the CPU allocator, and the text of ENOMEM
    "std::bad_alloc",
    "can't start new thread",  # Python: no memory for the stack
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for its workspace
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN: none fits
)
"""Parts of the messages of RuntimeErrors that mean too little memory and have no special type."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the cause of an error is too little memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) and any(
        part in str(error) for part in OUT_OF_MEMORY_MESSAGES
    ):
        return True
    return isinstance(error, OutOfMemoryError | MemoryError | torch.OutOfMemoryError)


def is_accelerator_error(error: BaseException) -> bool:
    """Whether an error comes from the accelerator; this process may not be able to use it again."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def is_machine_error(error: BaseException) -> bool:
    """Whether the machine is the cause of an error, not the file or the model at hand."""
    return is_out_of_memory(error) or is_accelerator_error(error)


@contextmanager
def as_out_of_memory() -> Iterator[None]:
    """Turn every error about too little memory into OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(str(error).splitlines()[0] if str(error) else "no memory") from error


def has_lost_accelerator() -> bool:
    """Whether this process has used a GPU that no longer accepts work from it."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def release_memory() -> None:
    """Return the freed memory of this process to the system.

    Without it Python frees a detector late, because its parts refer to each other, and glibc keeps
    freed memory in one arena per thread.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
