"""Runs as one HTML page that needs no other file and no network: what they hold, in words, numbers and pictures."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import gdd
from gdd.config import Config, ConfigError, DataConfig, read_as
from gdd.config.stages import DISTILLING, MATCHING, PRETRAIN, REFINE, steps_of
from gdd.data.readers import Dataset
from gdd.evaluation.named import NO_TEACHER, TRAINED_TEACHERS
from gdd.report import choice, curves, measured, runs, samples
from gdd.report.choice import Point
from gdd.report.curves import Chart
from gdd.report.runs import AnyStage, AuditedStage, ScoredStage, TrainedStage
from gdd.report.samples import Gallery
from gdd.report.tables import Section
from gdd.runtime.checkpoint import creating, write_atomically
from gdd.runtime.environment import git_revision
from gdd.training import matching

Opener = Callable[[DataConfig, int], Dataset]  # of data settings and a seed, as pipeline.open_data
Facts = list[tuple[str, str]]  # terms and what is said of them
_TEMPLATES = Path(__file__).with_name("templates")
_NUMBER = re.compile(r"(?:anew: )?([+-]?[\d,]*\.?\d+)")
_LOSSES = {"ns": "non-saturating", "hinge": "hinge", "wgan-gp": "WGAN-GP"}


@dataclass(frozen=True)
class _Part:
    """What the page says of one stage."""

    name: str
    settings: Facts
    config: str  # as JSON text
    provenance: Facts
    gallery: Gallery | None = None
    charts: Sequence[Chart] = ()
    sections: Sequence[Section] = ()
    audit: Section | None = None
    pictures: Sequence[str] = ()  # of sections and audit, as data URIs
    points: Sequence[Point] = ()  # to choose from
    folded: bool = False  # whether its gallery is shown only when asked for


def write_page(path: Path, folders: Sequence[Path], open_data: Opener, mixed: bool = False) -> int:
    """Write the page of run folders and return its bytes.

    Args:
        path: of the page.
        folders: of stages, or of runs with several.
        open_data: opens real images; they are shown only if they are those that a stage was distilled from.
        mixed: whether rows of different precision share a table.

    Raises:
        ConfigError: a folder holds no stage, a file is damaged, or the page cannot be written.
    """
    stages = runs.read_stages(folders, mixed)
    data = _Data(open_data)
    parts = [_part(stage, stages, data) for stage in stages]
    text = _rendered(parts, _costs(stages))
    with creating(path):
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return len(text.encode())


def _run(name: str) -> str:
    """Return the run's part of a stage's name."""
    return name.rpartition("/")[0]


def _is_refined(stage: TrainedStage, stages: Sequence[AnyStage]) -> bool:
    """Tell whether a stage's generator is one that another stage of its run has refined."""
    refined = {_run(made.name) for made in _with_result(stages) if made.stage == REFINE}
    return stage.stage == PRETRAIN and _run(stage.name) in refined


class _Data:
    """Opens each dataset once."""

    def __init__(self, open_data: Opener) -> None:
        self.open_data = open_data
        self.opened: dict[str, Dataset] = {}

    def of(self, stage: TrainedStage) -> Dataset:
        """Return the dataset that a stage was distilled from; ConfigError if it is missing or has changed."""
        assert stage.source is not None
        stored, known = stage.config.get("data"), stage.source.provenance.get("data")
        if not stored or not known:
            raise ConfigError("its file does not say which images it was distilled from")
        settings, seed = read_as(DataConfig, {**stored, "download": False}, "data"), stage.config.get("seed", 0)
        key = repr((settings, seed))
        if key not in self.opened:
            self.opened[key] = self.open_data(settings, seed)
        if self.opened[key].fingerprint != known:
            raise ConfigError(f"{settings.name} holds other images than those it was distilled from")
        return self.opened[key]


def _part(stage: AnyStage, stages: Sequence[AnyStage], data: _Data) -> _Part:
    config = json.dumps(stage.config, indent=2) if stage.config else ""
    told = stage.name, settings_in_words(stage), config, _origin(stage)
    if isinstance(stage, ScoredStage):
        pictures = [*map(samples.data_uri, stage.pictures)]
        return _Part(*told, sections=stage.sections, pictures=pictures, points=stage.points)
    if isinstance(stage, AuditedStage):
        pictures = [] if stage.picture is None else [samples.data_uri(stage.picture)]
        return _Part(*told, audit=_audit(stage, stages), pictures=pictures)
    charts = curves.charts(stage.metrics)
    if stage.source is None:
        return _Part(*told, charts=charts)
    dataset, note = None, []
    try:
        dataset = data.of(stage)
    except ConfigError as error:
        note = [f"No real images beside these: {error}."]
    gallery = samples.gallery(stage.source, dataset, samples.MOST_BYTES // len(_with_result(stages)))
    shown, folded = Gallery(gallery.classes, [*note, *gallery.notes]), _is_refined(stage, stages)
    return _Part(*told, gallery=shown, charts=charts, folded=folded)


def _audit(stage: AuditedStage, stages: Sequence[AnyStage]) -> Section:
    """Return the table of an audit, with a note if the page shows nothing that was audited."""
    table, hashes = (
        measured.audit_section(stage.audit),
        [made.source.hash for made in _with_result(stages) if made.source],
    )
    if not hashes or stage.audit.source.hash in hashes:
        return table
    return replace(table, notes=[f"This {stage.audit.source.kind} is none of those shown here.", *table.notes])


def _with_result(stages: Sequence[AnyStage]) -> list[TrainedStage]:
    """Return the stages that have made a generator or a set."""
    return [stage for stage in stages if isinstance(stage, TrainedStage) and stage.source is not None]


def _rendered(parts: Sequence[_Part], costs: Sequence[Section]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sort_value": sort_value, "numeric": numeric}
    # What stands in these files is ours; all else is escaped.
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.jinja").render(
        parts=parts,
        costs=costs,
        title=", ".join(dict.fromkeys(_run(part.name) for part in parts)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        curves=curves,
        choice=choice,
        made_with=f"gdd {gdd.__version__}" + (f", git {git_revision()}" if git_revision() else ""),
    )


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def sort_value(cell: str) -> float | None:
    """Return the number that a cell begins with, such as an interval's mean; infinity for "all", none for text."""
    if cell == "all":
        return math.inf
    number = _NUMBER.match(cell.replace("−", "-"))
    return float(number[1].replace(",", "")) if number else None


def numeric(lines: Sequence[Sequence[str]], column: int) -> bool:
    """Tell whether a column holds numbers; the first never does, for it names the lines."""
    return column > 0 and any(sort_value(line[column]) is not None for line in lines)


def settings_in_words(stage: AnyStage) -> Facts:
    """Return what was done, how, how long and with which seeds, as far as this version knows the settings."""
    if isinstance(stage, AuditedStage):
        return _of_audit(stage)
    try:
        config = read_as(Config, stage.config) if stage.config else None
    except ConfigError:
        config = None
    if isinstance(stage, ScoredStage):
        return _of_scores(stage, config)
    facts = _of_result(stage)
    if config is not None:
        facts += [
            ("Data", f"{config.data.name}, {100 * config.data.val_fraction:g} % of each class kept for validation")
        ]
        facts += _of_training(stage.stage, config)
        facts += [("Seed", str(config.seed))]
    return facts


def _of_result(stage: TrainedStage) -> Facts:
    source = stage.source
    if source is None:
        return [("Result", "none yet: the stage has not ended")]
    if source.generator is not None:
        spec, made = source.generator.spec, source.generator.generator
        size = f"{source.generator.bytes / 1024:,.1f} KiB"
        result = f"generator ({made.arch}, width {made.width}, noise of length {made.noise_dim}) of {size}"
    else:
        assert source.synthetic is not None
        spec, labels = source.synthetic.spec, "" if source.synthetic.soft_labels is None else " and soft labels"
        result = f"{source.synthetic.ipc} images per class{labels}, {source.synthetic.bytes / 1024:,.1f} KiB"
    facts = [("Distilled", spec.in_words), ("Result", result)]
    method = source.provenance.get("method")
    return facts if stage.stage in DISTILLING or not method else [*facts, ("Method", str(method))]


def _of_training(stage: str, config: Config) -> Facts:
    if stage == MATCHING:
        how = config.matching
        return [
            ("Objective", f"{matching.method_name(how)}, networks {how.pool.kind} ({how.pool.main})"),
            ("Length", f"{how.iterations:,} iterations"),
        ]
    if stage not in DISTILLING:
        return []
    steps = steps_of(config, stage)
    loss = f"adversarial, {_LOSSES[config.gan.loss]}"
    if stage == REFINE and config.refine.guided:
        wanted, weight = config.refine, f"{config.refine_weight:g}"
        if wanted.balance is not None:
            weight = f"(a weight that makes their gradients' ratio {wanted.balance:g})"
        loss += f" and {weight} × {wanted.loss}, networks {', '.join(wanted.pool.members)}"
    return [
        ("Loss", loss),
        (
            "Length",
            f"{steps.steps:,} steps of {steps.batch_size} images, learning rate {steps.lr:g} ({steps.schedule})",
        ),
    ]


def _of_scores(stage: ScoredStage, config: Config | None) -> Facts:
    rows = stage.rows
    facts = [
        ("Trained on", _listed(row.source for row in rows)),
        ("Tested on", f"{rows[0].total:,} test images of {rows[0].dataset}, once, after the last step"),
        ("Students", f"{_listed(row.arch for row in rows)}; seeds {_listed(row.seed for row in rows)}"),
        ("Images per class", _listed("all" if row.ipc is None else row.ipc for row in rows)),
        ("Recipe", f"{_listed(row.recipe for row in rows)}; augmentation {_listed(row.augment for row in rows)}"),
    ]
    if config is not None and config.evaluate.teacher in TRAINED_TEACHERS:
        facts.append(("Teacher", f"{config.evaluate.teacher_arch}, trained on: {config.evaluate.teacher}"))
    elif config is not None and config.evaluate.teacher != NO_TEACHER:
        facts.append(("Teacher", f"{config.evaluate.teacher}, trained before"))
    seeds = [row.distillation_seed for row in rows if row.distillation_seed is not None]
    return [*facts, ("Seeds of distillation", _listed(sorted(seeds)))] if seeds else facts


def _of_audit(stage: AuditedStage) -> Facts:
    audit = stage.audit
    return [
        ("Audited", f"{audit.source.kind} {audit.source.label}, by {audit.n_samples:,} samples"),
        ("Compared with", f"{audit.n_training:,} training images of {audit.dataset}"),
        ("Held out", f"{audit.n_held_out:,} images, the {audit.held_out} part"),
    ]


def _listed(values: Iterable[object]) -> str:
    """Return different values in the order in which they first appear."""
    return ", ".join(dict.fromkeys(map(str, values)))


def _costs(stages: Sequence[AnyStage]) -> list[Section]:
    """Return a table of what was trained and one of what was scored, each if there is any."""
    made = [_cost(stage) for stage in stages if isinstance(stage, TrainedStage)]
    scored = [_cost_of_scores(stage) for stage in stages if isinstance(stage, ScoredStage)]
    heads = ["stage", "steps", "real images seen", "images per second", "seconds with stages before", "KiB", "device"]
    heads_of_scores = ["stage", "students", "steps", "seconds", "seconds generating", "peak MiB", "device"]
    note = "Seconds of all students together, several of which may have been trained at once."
    sections = [
        Section("Distilling", [], heads, made),
        Section("Training and testing students", [note], heads_of_scores, scored),
    ]
    return [section for section in sections if section.lines]


def _cost(stage: TrainedStage) -> list[str]:
    config, source = stage.config.get(stage.stage, {}), stage.source
    done = max((int(line["step"]) for line in stage.metrics), default=None)
    batch = config.get("batch_size") if isinstance(config, dict) else None
    speed = [line["images_per_second"] for line in stage.metrics if "images_per_second" in line]
    seconds = source.provenance.get("seconds") if source is not None else None
    content = source and (source.synthetic or source.generator)
    return [
        stage.name,
        "" if done is None else f"{done:,}",
        f"{done * batch:,}" if done is not None and isinstance(batch, int) else "",
        f"{speed[-1]:,.0f}" if speed else "",
        "" if seconds is None else f"{seconds:,.1f}",
        f"{content.bytes / 1024:,.1f}" if content else "",
        str(source.provenance.get("device", "")) if source is not None else "",
    ]


def _cost_of_scores(stage: ScoredStage) -> list[str]:
    rows = stage.rows
    return [
        stage.name,
        f"{len(rows):,}",
        f"{sum(row.optimizer_steps for row in rows):,}",
        f"{sum(row.seconds for row in rows):,.1f}",
        f"{sum(row.seconds_generating for row in rows):,.1f}",
        f"{max(row.peak_memory_mb for row in rows):,.0f}",
        _listed(row.device for row in rows),
    ]


def _origin(stage: AnyStage) -> Facts:
    """Return hashes, revisions and versions; what a file does not state is left out."""
    if isinstance(stage, ScoredStage):
        rows = stage.rows
        libraries = Counter(f"{name} {version}" for row in rows for name, version in row.versions.items())
        facts: Facts = [
            ("Git revision", _listed(row.git_revision or "unknown" for row in rows)),
            ("Versions", ", ".join(libraries)),
            ("Precision", _listed(row.precision for row in rows)),
            ("Recipe hash", _listed(row.recipe_hash for row in rows)),
            ("Evaluation hash", _listed(row.config_hash for row in rows)),
        ]
        hashes = {row.source: row.source_hash for row in rows}
        return [*facts, ("Source hashes", ", ".join(f"{name} {text}" for name, text in hashes.items()))]
    if isinstance(stage, AuditedStage):
        audit = stage.audit
        return [(f"Hash of the {audit.source.kind}", audit.source.hash), ("Dataset fingerprint", audit.data)]
    if stage.source is None:
        return []
    origin = stage.source.provenance
    stated = {
        "Weights' hash" if stage.source.generator is not None else "Set's hash": stage.source.hash,
        "Dataset fingerprint": origin.get("data"),
        "Settings fingerprint": origin.get("fingerprint"),
        "Sampled from generator": origin.get("generator"),
    }
    return [(term, str(value)) for term, value in stated.items() if value]
