"""The flags by which an ensemble filters, chooses and labels samples, of the commands that write sets of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd.config import ConfigError

if TYPE_CHECKING:
    import torch

    from gdd.sampling.curate import Samples
    from gdd.sampling.ensemble_file import Ensemble
    from gdd.sampling.set_file import SyntheticSet

POOL = 500
_FLAGS = ("filter", "select", "soft_labels")


def add_arguments(parser: ArgumentParser, ensemble: str) -> None:
    """Add the flags; `ensemble` is the help of the one that names the ensemble."""
    parser.add_argument("--ensemble", type=Path | None, default=None, help=ensemble)
    parser.add_argument(
        "--filter", action="store_true", help="keep samples that the ensemble classifies as their label"
    )
    select = "order in which samples are taken, by the ensemble"
    parser.add_argument("--select", type=Literal["herding", "kmeans", "confident"] | None, default=None, help=select)
    pool = f"samples of each class that --select chooses from; null: {POOL}, of images that are there all"
    parser.add_argument("--pool", type=int | None, default=None, help=pool)
    parser.add_argument("--soft-labels", action="store_true", help="store the ensemble's logits with the images")


def judged(options: Namespace) -> list[str]:
    """Return which of the flags that need an ensemble are given."""
    return [flag for flag in _FLAGS if options[flag]]


def check_numbers(options: Namespace, lowest: dict[str, int]) -> None:
    """Refuse a number that is smaller than it may be."""
    for key, low in lowest.items():
        if options[key] is not None and options[key] < low:
            flag = key.replace("_", "-")
            raise ConfigError(f"--{flag} is {options[key]}, expected a whole number of at least {low}")


def check(options: Namespace, needs: str, pool: int | None = POOL) -> None:
    """Refuse flags that do not go together.

    Args:
        options: of the command; --pool becomes `pool` where --select is given without it.
        needs: where an ensemble may come from, in words.
        pool: none stands for all samples.
    """
    for flag in judged(options) if options.ensemble is None else ():
        raise ConfigError(f"--{flag.replace('_', '-')} is given, expected {needs} with it")
    if options.ensemble is not None and not judged(options):
        raise ConfigError("--ensemble is given, expected --filter, --select or --soft-labels with it")
    if options.pool is not None and options.select is None:
        raise ConfigError(f"--pool is {options.pool}, expected none without --select")
    if options.select is not None:
        options.pool = options.pool or pool
        if options.pool is not None and options.pool < options.ipc:
            raise ConfigError(f"--pool is {options.pool}, expected at least --ipc, {options.ipc}")


def chosen(options: Namespace, samples: "Samples", ensemble: "Ensemble", device: "torch.device") -> "SyntheticSet":
    """Return the set that the flags ask for."""
    from gdd.sampling import curate

    return curate.curated_set(
        samples,
        ensemble,
        options.ipc,
        device,
        filtered=options.filter,
        selection=options.select,
        pool=options.pool,
        soft_labels=options.soft_labels,
    )


def tell(console: Console, options: Namespace, synthetic: "SyntheticSet", out: Path) -> None:
    """Say what was written."""
    amount = f"{len(synthetic.images)} images, {options.ipc} of each of {synthetic.spec.num_classes} classes"
    console.print(f"wrote {out}: {amount}", soft_wrap=True)
    if options.filter:
        console.print(f"the ensemble kept {100 * synthetic.provenance['curated']['kept']:.1f} % of the images")
