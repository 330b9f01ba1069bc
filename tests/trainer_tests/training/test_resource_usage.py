"""CPU and memory use of a process."""

import time

from trainer.training.resource_usage import ResourceMeter


def test_a_busy_process_uses_more_cpu_than_a_sleeping_one() -> None:
    meter = ResourceMeter()
    time.sleep(0.1)
    asleep = meter.read()
    meter = ResourceMeter()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    busy = meter.read()
    assert asleep["cpu_cores"] < busy["cpu_cores"]
    assert 0.01 < busy["memory_gb"] < 100
    assert 0 < busy["machine_memory_percent"] <= 100
