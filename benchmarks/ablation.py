"""Stage 2 with each of its losses and with none, from the same stage 1, over several seeds of the distillation.

    python benchmarks/ablation.py --out FOLDER --seeds 0 1 2 [--arms control features] [--minutes 9] FLAGS

FLAGS are those of distill.py, such as `--config configs/fashion_mnist-cpu.yaml`; students are those of its
`evaluate.archs` and `evaluate.seeds`, of which one leaves no interval against real images. What is finished is not done
again, so the same command goes on; with --minutes each command stops after so many with a checkpoint, and with it this
script. With `--submit slurm --submitit '{"timeout_min": 120}'` distillations are tasks of an array job, and students
are shared among --tasks, as `gdd compare` does.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import Namespace

from gdd.cli.command import array_of
from gdd.cli.main import parse_config
from gdd.runtime.array import FOLDER, Array
from gdd.sampling import generator_file

HERE = Path(__file__).resolve().parent
_MATCHED = "--refine.balance 0.5 --refine.pool.augmented true"
_GROWN = "--refine.pool.augmented true --refine.pool.ages [100,400,1200]"
LOSSES = {
    "control": "--refine.loss none",
    "paper": "--refine.weight 0.01",
    "balanced": _MATCHED,
    "optimal": f"{_MATCHED} --refine.pairing optimal",
    "features": f"{_MATCHED} --refine.loss features",
    "gradient": f"{_MATCHED} --refine.loss gradient",
    "features of ages": f"{_GROWN} --refine.loss features --refine.balance 1",
}
# What SKD's paper explains its gain by, one change each of its own settings (arXiv 2501.04202).
_TWO = "--refine.pool.members [convnet3-w24,resnet10-w8]"
_THREE = "--refine.pool.members [convnet3-w24,resnet10-w8,{}]"
EXPLANATIONS = {
    "not standardized": "--refine.standardize false",
    "standardized by batch": "--refine.standardize_over batch",
    **{f"tau {tau}": f"--refine.tau {tau}" for tau in (1.0, 1.5, 3.0, 5.0)},
    **{f"lambda {weight}": f"--refine.weight {weight}" for weight in (0.001, 0.1, 1.0)},
    "pool of two": _TWO,
    "ResNet34 for ResNet18": _THREE.format("resnet34-w8"),
    "ViT beside two": _THREE.format("vit-w64-d6"),
    "teachers at 80 %": "--refine.pool.redraw_every 1000000 --refine.pool.max_accuracy 0.8",
    "teachers at their best": "--refine.pool.ages [2000]",
}
ARMS = {**LOSSES, **EXPLANATIONS}


def run(script: str, *flags: str) -> None:
    done = subprocess.run([sys.executable, *script.split(), *flags], cwd=HERE.parent)
    if done.returncode:
        raise SystemExit(done.returncode)


def distil(script: str, flags: Mapping[Path, Sequence[str]], array: Array | None, out: Path) -> None:
    """Run one stage with the flags of each folder that has no generator; end here if one stopped before that."""
    left = [folder for folder in flags if not (folder / generator_file.FILE).exists()]
    if array is not None and left:
        array.run([[sys.executable, script, *flags[folder]] for folder in left], out / FOLDER)
    for folder in left:
        if array is None:
            run(script, *flags[folder])
        if not (folder / generator_file.FILE).exists():
            raise SystemExit(f"{folder} is not finished; the same command goes on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the distillation")
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=[*LOSSES], help="those of the losses, if not given")
    parser.add_argument("--minutes", type=float, help="limit of each command")
    parser.add_argument("--submit", choices=("slurm", "local"), default=argparse.SUPPRESS, help="of an array job")
    parser.add_argument("--tasks", type=int, default=argparse.SUPPRESS, help="that train students, at most")
    parser.add_argument("--submitit", type=json.loads, default=argparse.SUPPRESS, help="its parameters, as JSON")
    options, flags = parser.parse_known_args()
    out = options.out.resolve()
    os.chdir(HERE.parent)
    flags += ["--run.root", str(out)] + (["--run.max_minutes", str(options.minutes)] if options.minutes else [])
    array = array_of(Namespace(**vars(options)), parse_config(flags))
    starts, refined = dict[Path, list[str]](), dict[Path, list[str]]()
    for seed in options.seeds:
        starts[out / f"start-{seed}/pretrain"] = [*flags, "--seed", str(seed), "--name", f"start-{seed}"]
    # The first arm is what the others are compared with; all seeds of one are a line.
    for arm in options.arms:
        for seed, start in zip(options.seeds, starts, strict=True):
            own = [*flags, "--seed", str(seed), "--name", f"{arm}-{seed}", "--refine.pretrained", str(start)]
            refined[out / f"{arm}-{seed}/refine"] = [*own, "--score", "false", *ARMS[arm].split()]
    distil("train_gan.py", starts, array, out)
    distil("distill.py", refined, array, out)
    sources = [*map(str, [*refined, *starts]), "real:random", "real:stream"]
    if array is not None:
        parameters = json.dumps(dict(array.parameters))
        flags += ["--submit", array.cluster, "--tasks", str(array.tasks), "--submitit", parameters]
    run("-m gdd compare --replicates", *sources, *flags)


if __name__ == "__main__":
    main()
