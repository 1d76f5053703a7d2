"""The only place that builds an Accelerator; what a process is told of threads and determinism, and how fast it is."""

import contextlib
import ctypes
import logging
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs

from gdd import rng
from gdd.config import ConfigError, RunConfig
from gdd.runtime import execution
from gdd.runtime.signals import is_launched

logger = logging.getLogger(__name__)

# A process that has finished its students waits for the one with the longest.
PATIENCE = timedelta(days=1)
# What a config of accelerate may ask for through the environment, and gdd's training does not know.
_SHARDING = tuple(f"ACCELERATE_USE_{kind}" for kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"))
_HOW = "on CPUs use ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"

# Of the measurements of speed.
_ROUNDS = 5
# Of matrices, and images in a convolution's batch, that keep a device busy; a slow core is done with them in seconds.
_SIZE, _IMAGES = {"cpu": 1024, "cuda": 8192}, {"cpu": 25, "cuda": 1000}
_DRAWN = 1024  # rows and columns that a matrix repeats


def make_accelerator(settings: RunConfig) -> Accelerator:
    """Build the process's Accelerator, refusing a launch that started fewer processes than were asked for.

    Args:
        settings: threads, precision, tf32 and deterministic. Threads that are not given are this machine's cores
            shared among its processes, for `accelerate launch` would leave each with one.

    Raises:
        ConfigError: other processes than asked for, or a device that gdd does not know.
    """
    # For several processes the launcher names a port, even when it starts only one of them.
    several = is_launched() and "MASTER_PORT" in os.environ
    _set_arithmetic(settings)
    # Buffers need no broadcast: the generator's batch norms are those of all processes together.
    # (torch 2.15 would like the argument to have another name, which accelerate does not know.)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    for name in _SHARDING:
        if os.environ.get(name, "false").lower() == "true":
            raise ConfigError(f"{name} is true, expected none of it: unset it, or choose another config of accelerate")
    # Passed whatever the user's accelerate config says, which would change results without showing.
    accelerator = Accelerator(
        mixed_precision="no",  # gdd.runtime.execution decides, as it does on compilation
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    require_known(accelerator.device)
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise ConfigError(f"WORLD_SIZE is {asked} but {accelerator.num_processes} process started; {_HOW}")
    if several and accelerator.num_processes == 1:
        # What `accelerate launch --cpu --num_processes 2` does without a word.
        raise ConfigError(f"accelerate was asked for several processes but started one; {_HOW}, or unset MASTER_PORT")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(settings.threads or max(1, count_cores() // local))
    if accelerator.device.type == "cpu":
        _keep_freed_memory()
    if settings.precision == "bfloat16" and not execution.has_bfloat16(accelerator.device):
        logger.warning("run.precision is bfloat16, which this machine emulates: up to 300 times slower than float32")
    return accelerator


def require_known(device: torch.device) -> None:
    """Raise ConfigError unless networks can be executed on the device."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"gdd works on CPUs and CUDA devices, not on {device.type}; set ACCELERATE_USE_CPU=true")


def set_up_worker(settings: RunConfig, threads: int) -> None:
    """Let a process without an Accelerator compute on CPUs as one with it does."""
    _set_arithmetic(settings)
    torch.set_num_threads(threads)
    _keep_freed_memory()


def count_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Compute with so many CPU threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_arithmetic(settings: RunConfig) -> None:
    products = "tf32" if settings.tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    # cuBLAS reads it when the first GPU is touched.
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if settings.deterministic != torch.are_deterministic_algorithms_enabled():  # the call takes seconds of imports
        torch.use_deterministic_algorithms(settings.deterministic)
    # Filling new memory finds bugs and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large freed blocks: fresh pages for activations slow training on CPUs 1.5 times or more."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        library = ctypes.CDLL(None)
        library.mallopt(m_mmap_max, 0)
        library.mallopt(m_trim_threshold, 2**31 - 1)


def peak_memory_mb(device: torch.device) -> float:
    """Return MiB: allocated on a GPU since the last reset, or the most that the process ever had on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10), 1)


def device_name(device: torch.device) -> str:
    """Return the device's name with what decides its last bits: TF32 on a GPU, threads on a CPU."""
    if device.type == "cuda":
        tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
        return torch.cuda.get_device_name(device) + (", TF32" if tf32 else "")
    threads = torch.get_num_threads()
    return f"{device.type} ({processor()}, {threads} thread{'s' * (threads > 1)})"


@cache
def processor() -> str:
    """Return the name of the CPU, or of its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def here() -> torch.device:
    """Return where a benchmark works: the first GPU, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> float:
    """Return the time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Adds up the seconds of the blocks that it is entered for; a GPU's own, for which nobody waits until `seconds`."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda" and torch.cuda.is_available()
        self._began = 0.0
        self._seconds = 0.0
        self._events: list[torch.cuda.Event] = []  # beginnings and ends, by turns

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._mark()

    def __exit__(self, *_: object) -> None:
        self._mark()
        if not self._on_gpu:
            self._seconds += time.perf_counter() - self._began

    def _mark(self) -> None:
        if self._on_gpu:
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record()

    @property
    def seconds(self) -> float:
        """All of them until now."""
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            self._seconds += sum(begin.elapsed_time(end) for begin, end in pairs) / 1000
            self._events.clear()
        return self._seconds


def work_clock(device: torch.device) -> float:
    """Return a time that does not go on while others have the CPU: the processor's, shared by this process's threads.

    A GPU has no such clock.
    """
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else clock(device)


class Taken(NamedTuple):
    """How long a call takes, in seconds, the device's work included."""

    alone: float  # if nobody else works on the machine
    now: float  # as busy as it is


def taken(call: Callable[[], object], device: torch.device, rounds: int = _ROUNDS) -> Taken:
    """Time a call after a warm-up: the least work that it took, and the median of the time that passed."""
    worked, passed = [], []
    for _ in range(1 + rounds):
        began = work_clock(device), clock(device)
        call()
        worked.append(work_clock(device) - began[0])
        passed.append(clock(device) - began[1])
    return Taken(min(worked[1:]), statistics.median(passed[1:]))


def seconds(call: Callable[[], object], device: torch.device, rounds: int = _ROUNDS) -> float:
    """Return how long `call` takes on the machine as busy as it is."""
    return taken(call, device, rounds).now


def matrix_product(device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None) -> float:
    """Return the GFLOP/s of a product of two square matrices; float32 is TF32 on a GPU if the package has set that.

    The `size` of the matrices, if it is given, is at most 1024 or a multiple of that.
    """
    work, took = matrix_product_taken(device, dtype, size)
    return work / took.now / 1e9


@torch.inference_mode()
def matrix_product_taken(
    device: torch.device, dtype: torch.dtype = torch.float32, size: int | None = None
) -> tuple[float, Taken]:
    """Return the FLOP of that product, and how long it takes."""
    size = size or _SIZE[device.type]
    # Not of equal numbers, with which a GPU needs less power and so is faster.
    drawn = min(size, _DRAWN)
    tiles = torch.randn(2, drawn, drawn, generator=rng.generator(0, rng.SPEED)).to(device, dtype)
    left, right = tiles.repeat(1, size // drawn, size // drawn)
    return 2 * size**3, taken(lambda: left @ right, device)


@torch.inference_mode()
def convolution(
    device: torch.device, dtype: torch.dtype = torch.float32, batch: int | None = None, width: int = 128
) -> float:
    """Return the GFLOP/s of a 3x3 convolution of `batch` maps of 32x32, `width` channels to as many."""
    batch = batch or _IMAGES[device.type]
    draw = rng.generator(0, rng.SPEED)
    images = torch.randn(batch, width, 32, 32, generator=draw).to(device, dtype)
    kernels = torch.randn(width, width, 3, 3, generator=draw).to(device, dtype)
    work = 2 * batch * 32 * 32 * width**2 * 9
    return work / seconds(lambda: F.conv2d(images, kernels, padding=1), device) / 1e9
