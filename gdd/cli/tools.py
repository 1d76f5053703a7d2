"""The tools of the console command: draw, verify, import, export or picture a set; each is a parser and an act."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from gdd.config import ConfigError, RunConfig
from gdd.runtime.signals import on_signals

# The acts import torch and friends themselves: they take seconds, and --help need not wait for them.
logger = logging.getLogger(__name__)


SHARD_SIZE = 10_000


def _sample_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Draw a training set from a generator.", exit_on_error=False)
    parser.add_argument("source", type=Path, help="run folder or generator.safetensors")
    parser.add_argument("--ipc", type=int, required=True, help="images per class, at least 1")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write, or the shards' folder")
    parser.add_argument("--seed", type=int, default=0, help="root of the noise, at least 0")
    parser.add_argument(
        "--format",
        type=Literal["safetensors", "webdataset"],
        default="safetensors",
        help="one file, or tar shards of PNG files; the same command goes on with a folder of shards",
    )
    parser.add_argument(
        "--shard-size",
        type=int | None,
        default=None,
        help=f"webdataset: samples per shard, {SHARD_SIZE} if not given; fastest in multiples of 16 per class",
    )
    parser.add_argument(
        "--shards", type=str | None, default=None, help="webdataset: A:B makes shards A to B - 1 only, as one of many"
    )
    parser.add_argument(
        "--threads", type=int | None, default=None, help="CPU threads of a process; its share of the cores if not given"
    )
    return parser


def _check_sampling(options: Namespace) -> None:
    least = {"ipc": 1, "seed": 0, "shard_size": 1, "threads": 1}
    for key, low in least.items():
        if options[key] is not None and options[key] < low:
            flag = key.replace("_", "-")
            raise ConfigError(f"--{flag} is {options[key]}, expected a whole number of at least {low}")
    for key in ("shard_size", "shards") if options.format == "safetensors" else ():
        if options[key] is not None:
            flag = key.replace("_", "-")
            raise ConfigError(f"--{flag} is {options[key]}, expected none with --format safetensors")


def _sample(options: Namespace) -> None:
    from gdd.formats import webdataset
    from gdd.runtime.device import make_accelerator
    from gdd.sampling import generator_file, sample, set_file

    _check_sampling(options)
    accelerator = make_accelerator(RunConfig(threads=options.threads))
    with on_signals():
        source = generator_file.load(options.source)
        if options.format == "webdataset":
            plan = webdataset.Plan(
                source.hash, options.seed, options.ipc, options.shard_size or SHARD_SIZE, source.spec
            )
            every = f"0:{plan.shards}"
            shards = webdataset.parse_range(every if options.shards is None else options.shards, plan.shards)
            webdataset.write_shards(options.out, plan, source, accelerator, shards)
        elif (drawn := sample.sample_set_together(source, options.ipc, options.seed, accelerator)) is not None:
            set_file.save(options.out, drawn)
    accelerator.end_training()


def _verify_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Check a folder of shards.", exit_on_error=False)
    parser.add_argument("folder", type=Path, help="what gdd sample --format webdataset wrote")
    return parser


def _verify(options: Namespace) -> None:
    from gdd.formats.webdataset import verify

    plan, found = verify(options.folder)
    logger.info(
        "%s: %d shards, %d images, %d classes, %d bytes, all as its manifest says",
        *(options.folder, found.shards, found.images, plan.spec.num_classes, found.bytes),
    )


def _import_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Read another project's set.", exit_on_error=False)
    parser.add_argument("file", type=Path, help="the .pt file of the set, or of its images")
    parser.add_argument("--format", type=Literal["dc", "mtt"], required=True, help="the project whose layout it has")
    parser.add_argument("--dataset", type=str, required=True, help="what it stands for, as in data.name")
    parser.add_argument("--root", type=Path, default=Path("data"), help="as in data.root")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--index", type=int | None, default=None, help="dc: which set of the file; the last if not given"
    )
    parser.add_argument("--labels", type=Path | None, default=None, help="mtt: the .pt file of the labels")
    parser.add_argument("--lr", type=Path | None, default=None, help="mtt: the .pt file of a learned learning rate")
    parser.add_argument("--method", type=str | None, default=None, help="name of the method, for the tables")
    return parser


def _import(options: Namespace) -> None:
    from gdd.data.readers import open_dataset
    from gdd.formats import dc_mtt
    from gdd.sampling import set_file

    refused = ("labels", "lr") if options.format == "dc" else ("index",)
    for flag in refused:
        if options[flag] is not None:
            raise ConfigError(f"--{flag} is {options[flag]}, expected none with --format {options.format}")
    if options.format == "mtt" and options.labels is None:
        raise ConfigError("--labels is not given, expected the .pt file of the labels with --format mtt")
    try:
        spec = open_dataset(options.dataset, options.root).spec
    except ConfigError as error:
        raise ConfigError(f"--dataset {options.dataset} with --root {options.root}: {error}") from error
    if options.format == "dc":
        index = -1 if options.index is None else options.index
        synthetic = dc_mtt.read_dc(options.file, spec, index, method=options.method)
    else:
        synthetic = dc_mtt.read_mtt(options.file, options.labels, spec, options.lr, method=options.method)
    set_file.save(options.out, synthetic)
    low, high = synthetic.images.aminmax()
    if max(-low, high) > 50:
        logger.warning(
            "%s: pixels are far from [0, 1]; is it normalised by %s's mean and std?", options.file, spec.name
        )
    soft, rate = synthetic.provenance.get("soft_labels"), synthetic.provenance.get("learned_lr")
    logger.info(
        "%s: %d images of %d classes, %d of each, pixels from %.3g to %.3g, %s labels%s",
        *(options.file, len(synthetic.images), spec.num_classes, synthetic.ipc, low, high),
        "hard" if soft is None else f"soft ({soft})",
        "" if rate is None else f", learned learning rate {rate:g}",
    )


def _export_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Write a set in another format.", exit_on_error=False)
    parser.add_argument("set", type=Path, help="a stored set, .safetensors")
    parser.add_argument(
        "--to",
        type=Literal["folder", "npz", "dc", "mtt"],
        required=True,
        help="PNG files by class, arrays, or another project's layout",
    )
    parser.add_argument("--out", type=Path, required=True, help="the new folder, or the .npz or .pt file")
    parser.add_argument("--labels", type=Path | None, default=None, help="mtt: the .pt file of the labels")
    return parser


def _export(options: Namespace) -> None:
    from gdd.formats import dc_mtt, export
    from gdd.sampling import set_file

    if options.to == "mtt" and options.labels is None:
        raise ConfigError("--labels is not given, expected the .pt file of the labels to write with --to mtt")
    if options.to != "mtt" and options.labels is not None:
        raise ConfigError(f"--labels is {options.labels}, expected none with --to {options.to}")
    synthetic = set_file.load(options.set)
    if options.to == "folder":
        export.export_folder(synthetic, options.out)
    elif options.to == "npz":
        export.export_npz(synthetic, options.out)
    elif options.to == "dc":
        dc_mtt.write_dc(synthetic, options.out)
    else:
        dc_mtt.write_mtt(synthetic, options.out, options.labels)


def _preview_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Draw a picture of a set.", exit_on_error=False)
    parser.add_argument("set", type=Path, help="a stored set, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the .png file to write")
    return parser


def _preview(options: Namespace) -> None:
    from gdd.formats import export
    from gdd.sampling import set_file

    export.preview(set_file.load(options.set), options.out)


TOOLS: dict[str, tuple[Callable[[str], ArgumentParser], Callable[[Namespace], None]]] = {
    "sample": (_sample_parser, _sample),
    "verify": (_verify_parser, _verify),
    "import": (_import_parser, _import),
    "export": (_export_parser, _export),
    "preview": (_preview_parser, _preview),
}
