"""CPU and memory use of a trial's process."""

import time

import psutil
import torch

GB = 1e9
"""Bytes."""


class ResourceMeter:
    """Measures this process since the meter was created. It costs microseconds."""

    def __init__(self) -> None:
        self._started, self._cpu = time.monotonic(), time.process_time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """The figures by name.

        Returns:
            `cpu_cores`: busy cores on average. `memory_gb`: resident memory now.
            `machine_memory_percent`: memory in use by all processes now. With CUDA also
            `gpu_memory_gb`: the peak of the tensors' memory.
        """
        seconds = max(time.monotonic() - self._started, 1e-6)
        figures = {
            "cpu_cores": (time.process_time() - self._cpu) / seconds,
            "memory_gb": psutil.Process().memory_info().rss / GB,
            "machine_memory_percent": psutil.virtual_memory().percent,
        }
        if torch.cuda.is_available():
            figures["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / GB
        return figures
