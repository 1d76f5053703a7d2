"""`gdd doctor`."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import __version__
from gdd.cli.command import Command
from gdd.config import Config, ConfigError
from gdd.data.places import NAMES, locate
from gdd.runtime import environment

_LIBRARIES = ("torch", "torchvision", "accelerate", "numpy", "timm", "safetensors")


def _add_arguments(parser: ArgumentParser) -> None:
    """Take none."""


def _installed() -> Iterator[tuple[str, str]]:
    yield "gdd", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    libraries = []
    for name in _LIBRARIES:
        try:
            libraries.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            libraries.append(f"{name} missing")
    yield "with", ", ".join(libraries)
    declared = environment.declared()
    for extra in environment.extras(declared):
        wanted = [needed for needed in environment.needed(declared, extra) if environment.lacking(needed)]
        how = " ".join(f"'{package.name}{package.specifier}'" for package in wanted)
        yield "extra", f"{extra}: missing, pip install {how}" if wanted else f"{extra}: installed"


def _room(config: Config) -> Iterator[tuple[str, str]]:
    names = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_AVPHYS_PAGES"} <= {*names}:
        total, free = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        yield "memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB unused"
    folder = next(path for path in (config.run.root.absolute(), *config.run.root.absolute().parents) if path.exists())
    disk = shutil.disk_usage(folder)
    yield "disk", f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free at {folder}"


def _data(root: Path) -> Iterator[tuple[str, str]]:
    present, missing = [], []
    for name in NAMES[:-1]:  # an image folder may lie anywhere
        try:
            locate(name, root)
            present.append(name)
        except ConfigError:
            missing.append(name)
    lacks = f"; not in {root}: {', '.join(missing)} (--data.download true fetches one)" if missing else ""
    yield "data", f"{', '.join(present)}{lacks}"


def _machine(config: Config) -> Iterator[tuple[str, str]]:
    """Say what the machine computes with, how fast, and how long the default run takes by that."""
    import torch

    from gdd import pipeline
    from gdd.cli import summary
    from gdd.runtime import device, execution

    accelerator = device.make_accelerator(config.run)
    try:
        cpu, used = torch.device("cpu"), accelerator.device
        half = "BF16" if execution.has_bfloat16(cpu) else "no BF16"
        cores, threads = device.count_cores(), torch.get_num_threads()
        counts = f"{cores} core{'s' * (cores > 1)}, {threads} thread{'s' * (threads > 1)}"
        yield "cpu", f"{device.processor()}, {counts}, {torch.backends.cpu.get_cpu_capability()}, {half}"
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            yield "gpu", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
        if not torch.cuda.is_available():
            yield "gpu", "none that this torch can use"
        precision = execution.resolve(config.run.precision, used)
        yield "networks", f"on {used.type}, in {precision} (run.precision {config.run.precision})"
        for dtype in (torch.float32, torch.bfloat16) if execution.has_bfloat16(used) else (torch.float32,):
            rates = device.matrix_product(used, dtype), device.convolution(used, dtype)
            name = str(dtype).removeprefix("torch.")
            yield "speed", f"{name}: matrix product {rates[0]:,.0f}, convolution {rates[1]:,.0f} GFLOP/s"
        dataset = pipeline.open_data(config.data, config.seed)
        stages, jobs = pipeline.stages_of(config), pipeline.plan(config, dataset, [])
        at = summary.speed(config, used)
        minutes = summary.estimated_minutes(config, dataset, accelerator, stages, jobs, at)
        now = "" if at.busy < summary.BUSY else f", {summary.as_busy(minutes, at)}"
        yield "time", f"about {summary.rounded(minutes)} for gdd distill with its defaults{now}"
    finally:
        accelerator.end_training()


def _doctor(options: Namespace, console: Console) -> None:
    config = Config()

    def say(lines: Iterator[tuple[str, str]]) -> None:
        for name, text in lines:
            console.print(f"{name:8} {text}", soft_wrap=True)

    say(_installed())
    say(_room(config))
    say(_data(config.data.root))
    if (wrong := environment.broken(environment.declared())) is not None:
        raise ConfigError(wrong)
    say(_machine(config))


_HELP = "say what is installed, what the machine can do, and what is missing"
COMMANDS = (Command("doctor", _HELP, _add_arguments, _doctor),)
