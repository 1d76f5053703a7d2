"""The tools of the console command: draw, import, export or picture a set; each is a parser and an act."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from gdd.config import ConfigError

# The acts import torch and friends themselves: they take seconds, and --help need not wait for them.
logger = logging.getLogger(__name__)


def _sample_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Draw a training set from a generator.", exit_on_error=False)
    parser.add_argument("source", type=Path, help="run folder or generator.safetensors")
    parser.add_argument("--ipc", type=int, required=True, help="images per class, at least 1")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0, help="root of the noise, at least 0")
    return parser


def _sample(options: Namespace) -> None:
    from gdd.run import make_accelerator
    from gdd.synth import artifact, sample, store

    if options.ipc < 1:
        raise ConfigError(f"--ipc is {options.ipc}, expected a whole number of at least 1")
    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}, expected a whole number of at least 0")
    device = make_accelerator().device
    store.save(options.out, sample.sample_set(artifact.load(options.source), options.ipc, options.seed, device))


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
    from gdd.synth import foreign, store

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
        synthetic = foreign.read_dc(options.file, spec, index, method=options.method)
    else:
        synthetic = foreign.read_mtt(options.file, options.labels, spec, options.lr, method=options.method)
    store.save(options.out, synthetic)
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
    from gdd.synth import exchange, foreign, store

    if options.to == "mtt" and options.labels is None:
        raise ConfigError("--labels is not given, expected the .pt file of the labels to write with --to mtt")
    if options.to != "mtt" and options.labels is not None:
        raise ConfigError(f"--labels is {options.labels}, expected none with --to {options.to}")
    synthetic = store.load(options.set)
    if options.to == "folder":
        exchange.export_folder(synthetic, options.out)
    elif options.to == "npz":
        exchange.export_npz(synthetic, options.out)
    elif options.to == "dc":
        foreign.write_dc(synthetic, options.out)
    else:
        foreign.write_mtt(synthetic, options.out, options.labels)


def _preview_parser(program: str) -> ArgumentParser:
    parser = ArgumentParser(prog=program, description="Draw a picture of a set.", exit_on_error=False)
    parser.add_argument("set", type=Path, help="a stored set, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the .png file to write")
    return parser


def _preview(options: Namespace) -> None:
    from gdd.synth import exchange, store

    exchange.preview(store.load(options.set), options.out)


TOOLS: dict[str, tuple[Callable[[str], ArgumentParser], Callable[[Namespace], None]]] = {
    "sample": (_sample_parser, _sample),
    "import": (_import_parser, _import),
    "export": (_export_parser, _export),
    "preview": (_preview_parser, _preview),
}
