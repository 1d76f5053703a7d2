"""`gdd sample` and `gdd verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import hub, zoo
from gdd.cli import choosing
from gdd.cli.command import Command, require_free
from gdd.config import ConfigError, DataConfig, RunConfig, read_as
from gdd.evaluation.named import FLOOR, teacher_beside
from gdd.runtime.signals import on_signals

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gdd.sampling.curate import Samples
    from gdd.sampling.ensemble_file import Ensemble
    from gdd.sampling.set_file import SyntheticSet

SHARD_SIZE = 10_000


def _add_sample_arguments(parser: ArgumentParser) -> None:
    source = "run folder, generator.safetensors, zoo:NAME or hub:USER/NAME"
    learned = f"{FLOOR}: the real images that the ensemble has learned"
    parser.add_argument("source", type=str, help=f"{source}; {learned}")
    parser.add_argument("--ipc", type=int, required=True, help="images per class, at least 1")
    out = "the .safetensors file to write, or the shards' folder; null: NAME-IPC.safetensors here, of zoo:NAME"
    parser.add_argument("--out", type=Path | None, default=None, help=out)
    parser.add_argument("--seed", type=int, default=0, help="root of the noise, at least 0")
    parser.add_argument(
        "--format",
        type=Literal["safetensors", "webdataset"],
        default="safetensors",
        help="one file, or tar shards of PNG files; the same command goes on with a folder of shards",
    )
    size = f"webdataset: samples per shard, {SHARD_SIZE} if not given; fastest in multiples of 16 per class"
    parser.add_argument("--shard-size", type=int | None, default=None, help=size)
    shards = "webdataset: A:B makes shards A to B - 1 only, as one of many"
    parser.add_argument("--shards", type=str | None, default=None, help=shards)
    judges = "of gdd train-ensemble, its run folder or file; null: the teacher beside the generator"
    choosing.add_arguments(parser, judges)
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of a process; null: its share")


def _check(options: Namespace) -> None:
    choosing.check_numbers(options, {"ipc": 1, "seed": 0, "shard_size": 1, "pool": 1, "threads": 1})
    for key in ("shard_size", "shards") if options.format == "safetensors" else ():
        if options[key] is not None:
            raise ConfigError(f"--{key.replace('_', '-')} is {options[key]}, expected none with --format safetensors")
    judged = choosing.judged(options)
    for flag in judged if options.format == "webdataset" else ():
        if flag != "soft_labels":
            raise ConfigError(f"--{flag} is given, expected --format safetensors with it")
    if judged and options.ensemble is None and options.source != FLOOR:
        options.ensemble = teacher_beside(hub.local_path(options.source))
    beside = "" if options.source == FLOOR else f", or {zoo.TEACHER} beside the generator,"
    choosing.check(options, f"--ensemble{beside}")
    if options.source == FLOOR and options.ensemble is None:
        raise ConfigError(f"the source is {FLOOR}, expected --ensemble with it, which says what it has learned from")


def _out(options: Namespace) -> Path:
    """Return the file or the folder to write: the one that was given, or NAME-IPC.safetensors for zoo:NAME."""
    if options.out is not None:
        return options.out
    name = options.source.removeprefix(zoo.PREFIX)
    if name == options.source or options.format == "webdataset":
        raise ConfigError("--out is not given, expected what to write; zoo:NAME alone has a file's name of its own")
    path = Path(f"{name}-{options.ipc}.safetensors")
    if path.exists():
        raise ConfigError(f"{path} exists, expected --out with what to write")
    return path


def _sample(options: Namespace, console: Console) -> None:
    _check(options)
    file, out = hub.local_path(options.source), _out(options)
    require_free("--out", out, [file, file / zoo.FILE, options.ensemble])
    from gdd.formats import webdataset
    from gdd.report import card
    from gdd.runtime.device import make_accelerator
    from gdd.sampling import ensemble_file, generator_file, set_file

    accelerator = make_accelerator(read_as(RunConfig, {"threads": options.threads}))
    with on_signals():
        if options.format == "webdataset":
            loaded = generator_file.load(options.source)
            size = options.shard_size or SHARD_SIZE
            teacher = ensemble_file.load(options.ensemble) if options.soft_labels else None
            told = None if teacher is None else teacher.hash
            plan = webdataset.ShardPlan(loaded.hash, options.seed, options.ipc, size, loaded.spec, told)
            shards = (
                range(plan.shards) if options.shards is None else webdataset.parse_range(options.shards, plan.shards)
            )
            webdataset.write_shards(out, plan, loaded, accelerator, shards, teacher)
            if accelerator.is_main_process and (out / webdataset.MANIFEST).exists():
                card.write(out)
        else:
            synthetic = _drawn(options, accelerator)
            if synthetic is not None:  # the main process has gathered it
                set_file.save(out, synthetic)
                card.write(out)
                choosing.tell(console, options, synthetic, out)
    accelerator.end_training()


def _drawn(options: Namespace, accelerator: "Accelerator") -> "SyntheticSet | None":
    """Return the set on the main process, None on others."""
    from gdd.sampling import curate, ensemble_file, generator_file, sample

    if options.ensemble is None:
        source = generator_file.load(options.source)
        return sample.sample_set_together(source, options.ipc, options.seed, accelerator)
    if not accelerator.is_main_process:
        return None
    judges, device = ensemble_file.load(options.ensemble), accelerator.device
    samples: Samples
    if options.source == FLOOR:
        samples = _learned_by(judges, options.seed)
    else:
        samples = curate.Generated(generator_file.load(options.source), options.seed, device)
    return choosing.chosen(options, samples, judges, device)


def _learned_by(ensemble: "Ensemble", seed: int) -> "Samples":
    """Return the real training images of an ensemble; ConfigError if they are no longer the same or unknown."""
    from gdd import pipeline
    from gdd.sampling import curate

    config, data = ensemble.provenance.get("config", {}), ensemble.provenance.get("data")
    if "data" not in config:
        raise ConfigError("the ensemble does not say what it has learned from, expected one of gdd train-ensemble")
    settings = read_as(DataConfig, config["data"], "the ensemble's data")
    dataset = pipeline.open_data(settings, ensemble.provenance["seed"])
    if dataset.fingerprint != data:
        raise ConfigError(f"{settings.name} holds other images than the ensemble has learned from")
    return curate.Real(dataset.train, dataset.spec, dataset.fingerprint, seed)


def _add_verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="what gdd sample --format webdataset wrote")


def _verify(options: Namespace, console: Console) -> None:
    from gdd.formats import webdataset

    plan, totals = webdataset.verify(options.folder)
    console.print(
        f"{options.folder}: {totals.shards} shards, {totals.images} images, {plan.spec.num_classes} classes, "
        f"{totals.bytes} bytes, all as its manifest says",
        soft_wrap=True,
    )


COMMANDS = (
    Command("sample", "draw a training set of any size from a generator", _add_sample_arguments, _sample),
    Command("verify", "check a folder of shards against its manifest", _add_verify_arguments, _verify),
)
