"""`gdd adopt`: samples that another program has made, or makes, become a set."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.cli import choosing
from gdd.cli.command import Command, require_free
from gdd.config import ConfigError, RunConfig, read_as
from gdd.data.places import CONTAINERS
from gdd.runtime.signals import on_signals

if TYPE_CHECKING:
    import torch

    from gdd.sampling.ensemble_file import Ensemble
    from gdd.sampling.set_file import SyntheticSet

_PROGRAMS = (".pt2", ".pt", ".pth", ".ts")  # the first of torch.export, the others TorchScript
_OF_PROGRAMS = ("noise_dim", "classes", "seed")
GRID = "grid.png"


def _add_arguments(parser: ArgumentParser) -> None:
    files = "images by class, shards or an .npz file; or a generator of TorchScript (.pt) or torch.export (.pt2)"
    parser.add_argument("samples", metavar="PATH", type=Path, help=files)
    parser.add_argument("--ipc", type=int, required=True, help="images per class of the set, at least 1")
    parser.add_argument("--out", type=Path, required=True, help="the new folder, of the set, its card and its picture")
    parser.add_argument("--maker", type=str | None, default=None, help="what made them, for the card and the tables")
    judges = "of gdd train-ensemble, its run folder or file, or a teacher.safetensors"
    choosing.add_arguments(parser, judges)
    parser.add_argument("--trust", action="store_true", help="generator: open it, which runs its maker's code")
    parser.add_argument("--noise-dim", type=int | None, default=None, help="generator: length of its noise vector")
    classes = "generator: how many classes it has; null: those of the ensemble"
    parser.add_argument("--classes", type=int | None, default=None, help=classes)
    parser.add_argument("--seed", type=int | None, default=None, help="generator: root of the noise, 0 if not given")
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads; null: all")


def _check(options: Namespace) -> bool:
    """Return whether the path is a generator; ConfigError for what is not there or does not go together."""
    path = options.samples
    choosing.check_numbers(options, {"ipc": 1, "pool": 1, "noise_dim": 1, "classes": 1, "seed": 0, "threads": 1})
    if not path.exists():
        raise ConfigError(f"{path} does not exist, expected images by class, shards, an .npz file or a generator")
    has_images = path.is_dir() or path.suffix.lower() in CONTAINERS
    choosing.check(options, "--ensemble", None if has_images else choosing.POOL)
    if has_images:
        for key in _OF_PROGRAMS:
            if options[key] is not None:
                raise ConfigError(f"--{key.replace('_', '-')} is {options[key]}, expected none with images")
        return False
    if path.suffix not in _PROGRAMS:
        named = ", ".join([*CONTAINERS, *_PROGRAMS])
        raise ConfigError(f"{path} is no folder and ends in {path.suffix or 'nothing'}, expected one of {named}")
    if not options.trust:
        raise ConfigError(
            f"{path} is a program, and to open it runs what its maker has written: --trust says that you trust them"
        )
    if options.noise_dim is None:
        raise ConfigError("--noise-dim is not given, expected the length of the generator's noise vector")
    if (options.classes is None) == (options.ensemble is None):
        raise ConfigError("a generator needs --classes, how many it has, or --ensemble, which knows them: one of both")
    return True


def _adopt(options: Namespace, console: Console) -> None:
    is_generator = _check(options)
    require_free("--out", options.out, [options.samples, options.ensemble])
    from gdd.formats import plain
    from gdd.report import card
    from gdd.runtime.device import make_accelerator
    from gdd.sampling import ensemble_file, set_file

    accelerator = make_accelerator(read_as(RunConfig, {"threads": options.threads}))
    with on_signals(), plain.filling(options.out) as place:
        judges = None if options.ensemble is None else ensemble_file.load(options.ensemble)
        taken = _generated if is_generator else _read
        synthetic = taken(options, judges, accelerator.device)
        set_file.save(place / set_file.FILE, synthetic)
        plain.preview(synthetic, place / GRID)
        card.write(place, rows=())
    choosing.tell(console, options, synthetic, options.out)
    accelerator.end_training()


def _read(options: Namespace, judges: "Ensemble | None", device: "torch.device") -> "SyntheticSet":
    """Return a set of images that are there."""
    from gdd.formats import plain
    from gdd.sampling import curate

    made = plain.read_samples(options.samples)
    made = replace(made, provenance={**made.provenance, "method": options.maker})
    if judges is None:
        return curate.first_set(made, options.ipc)
    made = plain.samples_of(made, judges.spec, options.samples)
    return choosing.chosen(options, made, judges, device)


def _generated(options: Namespace, judges: "Ensemble | None", device: "torch.device") -> "SyntheticSet":
    """Return a set of images that a generator makes."""
    from gdd.formats import foreign_generator, plain
    from gdd.sampling import curate

    dataset = [*map(str, range(options.classes))] if judges is None else judges.spec
    loaded = foreign_generator.load(options.samples, options.noise_dim, dataset, device, options.maker)
    samples = curate.Generated(loaded, options.seed or 0, device)
    if judges is not None:
        return choosing.chosen(options, samples, judges, device)
    drawn = curate.first_set(samples, options.ipc)
    return replace(drawn, spec=plain.own_spec(options.samples, drawn.spec.class_names, drawn.images))


COMMANDS = (Command("adopt", "make a set of samples that another program has made", _add_arguments, _adopt),)
