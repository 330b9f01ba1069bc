"""What a trial's process takes of its machine."""

import time

import psutil
import torch

GB = 1e9


class Meter:
    """Measures this process from the making of the meter on; costs microseconds."""

    def __init__(self) -> None:
        self._started, self._cpu = time.monotonic(), time.process_time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """`cpu_cores` busy on average, `memory_gb` resident now, `machine_memory_percent` in use by
        all, and with CUDA `gpu_memory_gb`, the most that tensors took."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        found = {
            "cpu_cores": (time.process_time() - self._cpu) / seconds,
            "memory_gb": psutil.Process().memory_info().rss / GB,
            "machine_memory_percent": psutil.virtual_memory().percent,
        }
        if torch.cuda.is_available():
            found["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / GB
        return found
