"""Stage 2 with each of its losses and with none, from the same stage 1, over several seeds of the distillation.

    python benchmarks/ablation.py --out FOLDER --seeds 0 1 2 [--arms control features] [--minutes 9] FLAGS

FLAGS are those of distill.py, such as `--config configs/fashion_mnist-cpu.yaml`; students are those of its
`evaluate.archs` and `evaluate.seeds`, of which one leaves no interval against real images. What is finished is not done
again, so the same command goes on; with --minutes each command stops after so many with a checkpoint, and with it this
script.
"""

import argparse
import subprocess
import sys
from pathlib import Path

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


def distilled(folder: Path, script: str, *flags: str) -> Path:
    """Run one stage unless its generator is there, and return its folder; end here if it stopped before that."""
    if not (folder / generator_file.FILE).exists():
        run(script, *flags)
    if not (folder / generator_file.FILE).exists():
        raise SystemExit(f"{folder} is not finished; the same command goes on")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the distillation")
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=[*LOSSES], help="those of the losses, if not given")
    parser.add_argument("--minutes", type=float, help="limit of each command")
    options, flags = parser.parse_known_args()
    out = options.out.resolve()
    flags += ["--run.root", str(out)] + (["--run.max_minutes", str(options.minutes)] if options.minutes else [])
    refined = {}
    for seed in options.seeds:
        own = [*flags, "--seed", str(seed)]
        start = distilled(out / f"start-{seed}/pretrain", "train_gan.py", *own, "--name", f"start-{seed}")
        for arm in options.arms:
            name = f"{arm}-{seed}"
            arm_flags = ["--name", name, "--refine.pretrained", str(start), "--score", "false", *ARMS[arm].split()]
            refined[arm, seed] = distilled(out / name / "refine", "distill.py", *own, *arm_flags)
    # The first arm is what the others are compared with; all seeds of one are a line.
    sources = [str(refined[arm, seed]) for arm in options.arms for seed in options.seeds]
    starts = [str(out / f"start-{seed}/pretrain") for seed in options.seeds]
    run("-m gdd compare --replicates", *sources, *starts, "real:random", "real:stream", *flags)


if __name__ == "__main__":
    main()
