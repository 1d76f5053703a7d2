"""What the page says of a stage in words and numbers: its settings, its cost, and where it comes from."""

from collections import Counter
from collections.abc import Iterable, Sequence

from gdd.config import Config, ConfigError, read_as
from gdd.config.stages import DISTILLING, MATCHING, PRETRAIN, REFINE
from gdd.report.page.runs import Audited, Scored, Stage, Trained
from gdd.report.tables import Section
from gdd.training import matching

Facts = list[tuple[str, str]]  # terms and what is said of them
_LOSSES = {"ns": "non-saturating", "hinge": "hinge", "wgan-gp": "WGAN-GP"}


def settings(stage: Stage) -> Facts:
    """Return what was done, how, how long, with which seeds; nothing of settings that this version does not know."""
    if isinstance(stage, Audited):
        return _of_audit(stage)
    try:
        config = read_as(Config, stage.config) if stage.config else None
    except ConfigError:
        config = None
    if isinstance(stage, Scored):
        return _of_scores(stage, config)
    facts = _of_result(stage)
    if config is not None:
        facts += [
            ("Data", f"{config.data.name}, {100 * config.data.val_fraction:g} % of each class kept for validation")
        ]
        facts += _of_training(stage.stage, config)
        facts += [("Seed", str(config.seed))]
    return facts


def _of_result(stage: Trained) -> Facts:
    source = stage.source
    if source is None:
        return [("Result", "none yet: the stage has not ended")]
    if source.generator is not None:
        spec, made = source.generator.spec, source.generator.generator
        size = f"{source.generator.bytes / 1024:,.1f} KiB"
        result = f"generator ({made.arch}, width {made.width}, noise of length {made.noise_dim}) of {size}"
    else:
        assert source.synthetic is not None
        spec, labels = source.synthetic.spec, " and soft labels" * (source.synthetic.soft_labels is not None)
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
    steps = config.pretrain if stage == PRETRAIN else config.refine
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


def _of_scores(stage: Scored, config: Config | None) -> Facts:
    rows = stage.rows
    facts = [
        ("Trained on", _listed(row.source for row in rows)),
        ("Tested on", f"{rows[0].total:,} test images of {rows[0].dataset}, once, after the last step"),
        ("Students", f"{_listed(row.arch for row in rows)}; seeds {_listed(row.seed for row in rows)}"),
        ("Images per class", _listed("all" if row.ipc is None else row.ipc for row in rows)),
        ("Recipe", f"{_listed(row.recipe for row in rows)}; augmentation {_listed(row.augment for row in rows)}"),
    ]
    if config is not None and config.evaluate.teacher != "none":
        facts.append(("Teacher", f"{config.evaluate.teacher_arch}, trained on: {config.evaluate.teacher}"))
    seeds = [row.distillation_seed for row in rows if row.distillation_seed is not None]
    return [*facts, ("Seeds of distillation", _listed(sorted(seeds)))] if seeds else facts


def _of_audit(stage: Audited) -> Facts:
    found = stage.found
    return [
        ("Audited", f"{found.source.kind} {found.source.label}, by {found.n_samples:,} samples"),
        ("Compared with", f"{found.n_training:,} training images of {found.dataset}"),
        ("Held out", f"{found.n_held_out:,} images, the {found.held_out} part"),
    ]


def _listed(values: Iterable[object]) -> str:
    """Return different values in the order in which they first appear."""
    return ", ".join(dict.fromkeys(map(str, values)))


def costs(stages: Sequence[Stage]) -> list[Section]:
    """Return a table of what was trained and one of what was scored, each if there is any."""
    made = [_cost(stage) for stage in stages if isinstance(stage, Trained)]
    scored = [_cost_of_scores(stage) for stage in stages if isinstance(stage, Scored)]
    heads = ["stage", "steps", "real images seen", "images per second", "seconds with stages before", "KiB", "device"]
    heads_of_scores = ["stage", "students", "steps", "seconds", "seconds generating", "peak MiB", "device"]
    note = "Seconds of all students together, several of which may have been trained at once."
    sections = [
        Section("Distilling", [], heads, made),
        Section("Training and testing students", [note], heads_of_scores, scored),
    ]
    return [section for section in sections if section.lines]


def _cost(stage: Trained) -> list[str]:
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


def _cost_of_scores(stage: Scored) -> list[str]:
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


def provenance(stage: Stage) -> Facts:
    """Return hashes, revisions and versions; what a file does not state is left out."""
    if isinstance(stage, Scored):
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
    if isinstance(stage, Audited):
        found = stage.found
        return [(f"Hash of the {found.source.kind}", found.source.hash), ("Dataset fingerprint", found.data)]
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
