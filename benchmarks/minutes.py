"""What pretraining is worth by minutes: averaged generators of a run's checkpoints, scored as streams.

    python benchmarks/minutes.py RUN/pretrain [RUN/pretrain ...] --every 1000 --out FOLDER FLAGS

A run's last checkpoint is scored too. FLAGS are those of `gdd compare`, such as `--data.name cifar10 --arch
convnet3-w24`. FOLDER gets the generators, each with batch statistics of its own images, the rows of `gdd compare`, and
minutes.png: the share of the accuracy of as many fresh real images, a line per run. Runs need `--run.keep` for their
checkpoints.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ablation import run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdd import pipeline
from gdd.config import DataConfig, GanConfig, read_as
from gdd.data.readers import Dataset
from gdd.evaluation.row import Row
from gdd.models.gan import make_generator, width_of
from gdd.report import statistics
from gdd.runtime import checkpoint
from gdd.sampling import generator_file
from gdd.training.generator_choice import with_own_statistics


def write_generator(folder: Path, step: int, config: dict[str, Any], dataset: Dataset, out: Path) -> float:
    """Write the averaged generator of a checkpoint with its own statistics; return the minutes that it took."""
    gan, spec = read_as(GanConfig, config["gan"]), dataset.spec
    states = torch.load(checkpoint.path_at(folder, step), weights_only=True)["states"]
    generator = make_generator(gan.arch, spec.shape, spec.num_classes, width_of(gan, spec.shape), gan.noise_dim)
    average = torch.optim.swa_utils.AveragedModel(generator)
    average.load_state_dict(states["average"])
    seconds = states["clock"]["seconds"]
    origin = {"method": "gan", "stage": "pretrain", "seed": config["seed"], "seconds": seconds, "config": config}
    out.mkdir(parents=True, exist_ok=True)
    generator.load_state_dict(average.module.state_dict())
    kept = with_own_statistics(generator, config["seed"])
    generator_file.save(out, kept, spec, {**origin, "data": dataset.fingerprint})
    return seconds / 60


def shares(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Return, by architecture and generator's hash, the mean share in percent; nan if all students failed."""
    lines = statistics.shares(statistics.frame(rows))
    return {
        str(arch): {line.source_hash: line.share.mean for line in of.itertuples()}
        for arch, of in lines.groupby("arch", sort=False)
    }


def draw(path: Path, found: dict[str, dict[str, float]], runs: dict[str, dict[str, float]]) -> None:
    """Draw a panel per architecture and a line per run, whose generators' minutes are given by their hashes."""
    figure = Figure(figsize=(4.2 * len(found), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (arch, of) in zip(panels, found.items(), strict=True):
        for name, minutes in runs.items():
            axes.plot([*minutes.values()], [of[source] for source in minutes], "o-", label=name)
        axes.set_title(arch, fontsize=10, loc="left")
        axes.set_xlabel("minutes of pretraining")
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 104)
    panels[0].set_ylabel("share of fresh real images (%)")
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of pretraining")
    parser.add_argument("--every", type=int, required=True, help="steps from one scored checkpoint to the next")
    parser.add_argument("--out", type=Path, required=True, help="folder of the generators and the results")
    options, flags = parser.parse_known_args()
    out = options.out.resolve()
    files: list[str] = []
    runs: dict[str, dict[str, float]] = {}
    for folder in options.runs:
        config = json.loads((folder / "config.json").read_text())["config"]
        name, minutes = config["name"], dict[str, float]()
        if name in runs:
            parser.error(f"two runs are called {name}, expected different names")
        dataset = pipeline.open_data(read_as(DataConfig, config["data"]), config["seed"])
        steps = checkpoint.steps(folder)
        for step in steps:
            if step % options.every == 0 or step == steps[-1]:
                file = out / f"{name}-{step}"
                taken = write_generator(folder, step, config, dataset, file)
                minutes[generator_file.load(file).hash] = taken
                files.append(str(file))
        runs[name] = minutes
    own = ["--name", "scores", "--run.root", str(out), "--evaluate.protocols", "[stream]"]
    run("-m gdd compare", *files, "real:random", "real:stream", *own, *flags)
    found = shares(statistics.require_rows(out / "scores/compare"))
    draw(out / "minutes.png", found, runs)
    for name, minutes in runs.items():
        for source, taken in minutes.items():
            figures = {"run": name, "minutes": round(taken, 3)} | {a: round(of[source], 1) for a, of in found.items()}
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
