"""How long a step takes, counted: the arithmetic of a step over what a device sustains. No step is run.

Models stand on torch's meta device, so only shapes are computed; the loss goes forward and, with gradients, truly backward,
and torch.utils.flop_counter counts. Every number that is assumed stands here, in one place, with where it is from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from helpers.memory import every_token_counts

# By the makers' data sheets: peak of dense half precision in TFLOP/s, GB of memory, and GB/s to and from it. NVIDIA T4 (2018),
# L4 (2023), V100 PCIe (2017), A100 (2020), H100 SXM (2022), H200 SXM (2023), P100 PCIe (2016; no tensor cores).
GPUS = {"T4": (65, 16, 320), "L4": (121, 24, 300), "V100": (112, 16, 900), "A100": (312, 40, 1555), "H100": (989, 80, 3350),
        "H200": (989, 141, 4800), "P100": (18.7, 16, 732)}  # fmt: skip
SUSTAINED = 0.3  # of the peak, in training: an assumption, within what people report (0.2 to 0.5) for models of this size
LAUNCH = 10e-6  # seconds that starting an operation takes, however small: an assumption, usual for uncompiled PyTorch
STEP = 3e-3  # seconds a step beside: Lightning, moving the batch. Measured: 1.7 on a core of 2024; a cloud's are slower
UPDATE_BYTES = 48  # to and from memory for a parameter that trains: gradient, its norm and scale, AdamW's two moments, itself
# A CPU core in fp32, in TFLOP/s that it sustains: what the recorded tiny runs of notebooks 03 and 04 come to.
CPU_CORE = 0.06
# Photos a second that one vCPU opens, resizes and crops. Measured: 360 a second and core for photos of 500 x 375, 250 of
# 640 x 480; a vCPU of Kaggle or Colab is half of an older, slower core.
PHOTOS_A_SECOND = 100
KAGGLE_CPUS = 4


@dataclass(frozen=True)
class Device:
    """What a step runs on: TFLOP/s that it sustains, its memory in GB (None: the computer's), cores that open pictures."""

    name: str
    sustained: float
    memory: float | None
    bandwidth: float  # GB/s to and from that memory
    cores: int
    launch: float = LAUNCH

    def seconds(self, work: Work, times: float = 1) -> float:
        """How long `work` takes, `times` times: by its arithmetic, or by starting its operations, whichever is more."""
        return times * max(work.flops / (self.sustained * 1e12), work.operations * self.launch)

    def updating(self, trained: int) -> float:
        """Seconds that a step takes beside forward and backward, for so many parameters that train."""
        return STEP + UPDATE_BYTES * trained / (self.bandwidth * 1e9)

    def opening(self, pictures: float) -> float:
        """Seconds for reading so many photos."""
        return pictures / (PHOTOS_A_SECOND * self.cores)

    @property
    def assumption(self) -> str:
        if self.memory is None:
            return f"{self.sustained / self.cores * 1000:.0f} GFLOP/s a core"
        return f"{SUSTAINED:.0%} of its {self.sustained / SUSTAINED:.0f} TFLOP/s"


@dataclass(frozen=True)
class Work:
    """Floating-point operations (a multiplication and an addition are two), and operations of PyTorch that do them."""

    flops: float
    operations: int


def gpu(name: str, cores: int = KAGGLE_CPUS, memory: float | None = None) -> Device:
    """A GPU by its name, or by what torch calls it; one that is not known counts as a T4. memory: its own in GB, if known."""
    short = known_gpu(name) or "T4"
    peak, usual, bandwidth = GPUS[short]
    return Device(short, SUSTAINED * peak, memory or usual, bandwidth, cores)


def known_gpu(name: str) -> str | None:
    """Which of GPUS is a whole word of the name: "Tesla T4", "NVIDIA A100-SXM4-40GB"; None: an L40S is no L4."""
    return next((short for short in GPUS if re.search(rf"\b{short}\b", name)), None)


def cpu(cores: int) -> Device:
    """A CPU: what the tiny profile runs on, and the full one where it is asked to."""
    return Device(f"{cores} CPU cores", CPU_CORE * cores, None, 10 * cores, cores, launch=0.0)


class _Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def count(loss: Callable[[], Tensor]) -> Work:
    """What computing `loss()` takes, on the meta device."""
    return _count(loss, backward=False)[0]


def count_step(loss: Callable[[], Tensor]) -> tuple[Work, Work]:
    """What `loss()` takes alone, and with its gradients."""
    return _count(loss, backward=True)


def _count(loss: Callable[[], Tensor], backward: bool) -> tuple[Work, Work]:
    with _Operations() as operations, FlopCounterMode(display=False) as flops, every_token_counts():
        result = loss()
        alone = Work(flops.get_total_flops(), operations.count)
        if backward:
            result.backward()
    return alone, Work(flops.get_total_flops(), operations.count)
