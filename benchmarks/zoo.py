"""A generator of gdd/zoo with what belongs to it: settings that made it, rows of students, audit, manifest and card.

    python benchmarks/zoo.py NAME [--from STAGE] [--archs convnet3-w24 mlp] [--seeds 0 1 2] [--longer] [--out runs]

STAGE is the folder of a finished stage, such as runs/digits/refine, whose generator becomes zoo:NAME; without it the
generator that is there is scored anew. Students train in float32, uncompiled and with one thread, so that other
machines give the same rows but for rounding. What is scored is not scored again, so the same command goes on.
"""

import argparse
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from ablation import run

from gdd.config import Config, read_as, to_plain
from gdd.config.stages import AUDIT
from gdd.evaluation import audit, grid, sources
from gdd.evaluation.row import Row
from gdd.evaluation.sources import FLOOR, STREAM_CEILING
from gdd.report import card, statistics, subject
from gdd.report.intervals import Estimate
from gdd.runtime.checkpoint import load_tensors, write_json
from gdd.sampling import generator_file
from gdd.zoo import FILE, HOME, MANIFEST, PREFIX, Manifest, Mean, Score, sha256

ARCHS = ("convnet3-w24", "resnet18-bn-w8", "alexnet-bn-w8", "mlp")
CONDITIONS = [
    *("--ipc", "10", "--evaluate.protocols", "[stream]"),
    *("--run.precision", "float32", "--run.compile", "off", "--run.threads", "1"),
]
# A generator looks best where students stop early, so with --longer the first of them goes on, compiled to afford it.
_COMPILED = ("--run.compile", "auto")
LONGER = {
    1000: _COMPILED,
    5000: (
        *_COMPILED,
        *("--evaluate.recipe.schedule", "cosine"),
        *("--evaluate.recipe.augment", "flip_crop", "--evaluate.recipe.pick", "all"),
    ),
}
SAMPLES = "500"  # of each class, in an audit
_COMMANDS = {"pretrain": "train_gan.py", "refine": "distill.py"}  # that end with the stage


def differences(given: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Return what of the given settings is not their default, section by section."""
    parts = {
        key: differences(value, default[key]) if isinstance(value, dict) else value
        for key, value in given.items()
        if value != default[key]
    }
    return {key: value for key, value in parts.items() if value != {}}


def config_text(name: str, provenance: dict[str, Any]) -> str:
    """Return the YAML file of the settings that a generator says it was made with."""
    settings = differences(to_plain(read_as(Config, provenance["config"])), to_plain(Config()))
    header = [
        f"command: uv run {_COMMANDS[provenance['stage']]} --config gdd/zoo/{name}/config.yaml",
        f"machine: {provenance['device']}",
        f"minutes: {provenance['seconds'] / 60:.1f}",
        f"result: {MANIFEST}",
    ]
    text = yaml.safe_dump({"name": name, **settings}, sort_keys=False)
    return "".join(f"# {line}\n" for line in header) + "\n" + text


def scores(rows: list[Row]) -> tuple[Score, ...]:
    """Return the score of each architecture after each number of steps, to a thousandth of a percent."""
    found = []
    for part in statistics.by_recipe(statistics.frame(rows)):
        lines = statistics.summarise(part)
        for arch in dict.fromkeys(lines["arch"]):
            of = lines[lines["arch"] == arch].set_index("kind")
            (facts,) = of.loc[["generator"]].itertuples()
            means = (_mean(of.at[kind, "accuracy"]) for kind in (FLOOR, "generator", STREAM_CEILING))
            how = facts.protocol, facts.ipc, facts.recipe, facts.optimizer_steps, facts.precision
            found.append(Score(arch, *how, *means))
    return tuple(found)


def _mean(estimate: Estimate) -> Mean:
    if estimate.failed:
        raise SystemExit(f"{estimate.failed} of {estimate.students} students failed, for which a manifest has no place")
    width = None if math.isnan(estimate.half_width) else round(estimate.half_width, 3)
    return Mean(round(estimate.mean, 3), width, estimate.n)


def manifest(folder: Path) -> Manifest:
    """Return what a folder's generator and rows say."""
    path = folder / FILE
    loaded, (_, metadata) = generator_file.load(path), load_tensors(path)
    spec, origin = loaded.spec, loaded.provenance
    facts = spec.name, spec.shape, spec.class_names, metadata["version"], origin["stage"], origin["seconds"]
    return Manifest(sha256(path), loaded.bytes, *facts, scores(grid.read_rows(folder)))


def card_text(folder: Path) -> str:
    """Return the card of a folder's generator."""
    source, name = sources.read(str(folder)), f"{PREFIX}{folder.name}"
    about = subject.of_source(source, "generator", name)
    return card.text(about, grid.read_rows(folder), card.read_audit_notes(folder, about))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what follows zoo:")
    parser.add_argument("--from", dest="stage", type=Path, help="folder of the finished stage that made the generator")
    parser.add_argument("--archs", nargs="+", default=[*ARCHS], help="students")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the students")
    parser.add_argument(
        "--longer", action="store_true", help="train the first of --archs for 1,000 and 5,000 steps too"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where students are scored")
    options = parser.parse_args()
    folder, out = HOME / options.name, options.out.resolve()
    if options.stage is not None:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(options.stage / FILE, folder / FILE)
    loaded = generator_file.load(folder)
    (folder / "config.yaml").write_text(config_text(options.name, loaded.provenance))
    scored = f"zoo-{options.name}-{loaded.hash}"
    own = ["--name", scored, "--run.root", str(out), "--evaluate.seeds", str(options.seeds)]
    run("-m gdd compare", f"gdd/zoo/{options.name}", "--arch", *options.archs, *CONDITIONS, *own)
    for steps, flags in LONGER.items() if options.longer else ():
        longer = ["--arch", options.archs[0], *CONDITIONS, "--evaluate.recipe.steps", str(steps), *flags]
        run("-m gdd compare", f"gdd/zoo/{options.name}", *longer, *own)
    shutil.copyfile(out / scored / "compare" / grid.ROWS, folder / grid.ROWS)
    run("-m gdd audit", f"gdd/zoo/{options.name}", "--ipc", SAMPLES, "--name", scored, "--run.root", str(out))
    shutil.copyfile(out / scored / AUDIT / audit.AUDIT_FILE, folder / audit.AUDIT_FILE)
    write_json(folder / MANIFEST, asdict(manifest(folder)))
    (folder / card.NAME).write_text(card_text(folder))
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
