"""`gdd import`, `gdd export` and `gdd preview`."""

import logging
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli.command import Command, require_free
from gdd.config import ConfigError

logger = logging.getLogger(__name__)


def _add_import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the .pt file of the set, or of its images")
    parser.add_argument("--format", type=Literal["dc", "mtt"], required=True, help="the project whose layout it has")
    parser.add_argument("--dataset", type=str, required=True, help="what it stands for, as in data.name")
    parser.add_argument("--root", type=Path, default=Path("data"), help="as in data.root")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--index", type=int | None, default=None, help="dc: which set of the file; null: the last")
    parser.add_argument("--labels", type=Path | None, default=None, help="mtt: the .pt file of the labels")
    parser.add_argument("--lr", type=Path | None, default=None, help="mtt: the .pt file of a learned learning rate")
    space = "whether images are (x - mean) / std, as both projects store them, or in [0, 1]"
    parser.add_argument("--space", type=Literal["normalized", "unit"], default="normalized", help=space)
    parser.add_argument("--method", type=str | None, default=None, help="name of the method, for the tables")


def _import(options: Namespace, console: Console) -> None:
    for flag in ("labels", "lr") if options.format == "dc" else ("index",):
        if options[flag] is not None:
            raise ConfigError(f"--{flag} is {options[flag]}, expected none with --format {options.format}")
    if options.format == "mtt" and options.labels is None:
        raise ConfigError("--labels is not given, expected the .pt file of the labels with --format mtt")
    images = options.root if options.dataset == "folder" else Path(options.dataset)
    require_free("--out", options.out, [options.file, options.labels, options.lr], images)
    from gdd.data.readers import open_dataset
    from gdd.formats import dc_mtt
    from gdd.report import card
    from gdd.sampling import set_file

    try:
        spec = open_dataset(options.dataset, options.root).spec
    except ConfigError as error:
        raise ConfigError(f"--dataset {options.dataset} with --root {options.root}: {error}") from error
    if spec.are_numbers_as_text:
        first = ", ".join(spec.class_names[:4])
        logger.warning(
            "the classes of %s are numbers sorted as text: labels 0, 1, 2, 3 are classes %s; a set whose labels are "
            "the numbers themselves would stand for other classes",
            options.dataset,
            first,
        )
    taken = {"space": options.space, "method": options.method}
    if options.format == "dc":
        index = -1 if options.index is None else options.index
        synthetic = dc_mtt.read_dc(options.file, spec, index, **taken)
    else:
        synthetic = dc_mtt.read_mtt(options.file, options.labels, spec, options.lr, **taken)
    set_file.save(options.out, synthetic)
    card.write(options.out)
    low, high = synthetic.images.aminmax()
    soft, rate = synthetic.provenance.get("soft_labels"), synthetic.provenance.get("learned_lr")
    console.print(
        f"wrote {options.out}: {len(synthetic.images)} images of {spec.num_classes} classes, {synthetic.ipc} of each, "
        f"pixels from {low:.3g} to {high:.3g}, {'hard' if soft is None else f'soft ({soft})'} labels"
        + ("" if rate is None else f", learned learning rate {rate:g}"),
        soft_wrap=True,
    )


def _add_export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("set", type=Path, help="a stored set, .safetensors, or hub:datasets/USER/NAME")
    layouts = "PNG files by class, a dataset of Hugging Face's datasets, arrays, or another project's layout"
    parser.add_argument("--to", type=Literal["folder", "hf", "npz", "dc", "mtt"], required=True, help=layouts)
    parser.add_argument("--out", type=Path, required=True, help="the new folder, or the .npz or .pt file")
    parser.add_argument("--labels", type=Path | None, default=None, help="mtt: the .pt file of the labels")


def _export(options: Namespace, console: Console) -> None:
    if options.to == "mtt" and options.labels is None:
        raise ConfigError("--labels is not given, expected the .pt file of the labels to write with --to mtt")
    if options.to != "mtt" and options.labels is not None:
        raise ConfigError(f"--labels is {options.labels}, expected none with --to {options.to}")
    require_free("--out", options.out, [options.set])
    if options.labels is not None:
        require_free("--labels", options.labels, [options.set])
    from gdd.evaluation import sources
    from gdd.formats import dc_mtt, plain
    from gdd.report import card
    from gdd.sampling import set_file

    synthetic = set_file.load(options.set)
    if options.to in ("folder", "hf"):
        write = plain.export_folder if options.to == "folder" else plain.export_hugging_face
        with plain.filling(options.out) as place:
            write(synthetic, place)
            card.write_export(sources.of_set(synthetic, options.set), place, options.to)
    elif options.to == "npz":
        plain.export_npz(synthetic, options.out)
    elif options.to == "dc":
        dc_mtt.write_dc(synthetic, options.out)
    else:
        dc_mtt.write_mtt(synthetic, options.out, options.labels)
    if synthetic.soft_labels is not None and options.to in ("folder", "npz", "dc"):
        logger.warning("the soft labels of %s are left out: --to %s has labels alone", options.set, options.to)
    also = "" if options.labels is None else f" and {options.labels}"
    amount = f"{len(synthetic.images)} images of {synthetic.spec.num_classes} classes"
    console.print(f"wrote {options.out}{also}: {amount}", soft_wrap=True)


def _add_preview_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("set", type=Path, help="a stored set, .safetensors, or hub:datasets/USER/NAME")
    parser.add_argument("--out", type=Path, required=True, help="the .png file to write")


def _preview(options: Namespace, console: Console) -> None:
    require_free("--out", options.out, [options.set])
    from gdd.formats import plain
    from gdd.sampling import set_file

    synthetic = set_file.load(options.set)
    plain.preview(synthetic, options.out)
    rows = f"a row of images for each of {synthetic.spec.num_classes} classes"
    console.print(f"wrote {options.out}: {rows}", soft_wrap=True)


COMMANDS = (
    Command("import", "read another project's set", _add_import_arguments, _import),
    Command("export", "write a set in another format", _add_export_arguments, _export),
    Command("preview", "draw a picture of a set", _add_preview_arguments, _preview),
)
