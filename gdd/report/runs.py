"""What the folders of runs hold: stages that were trained, scores, and audits."""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gdd.config import ConfigError, earlier, read_as
from gdd.config.stages import AUDIT, COMPARE, DISTILLING, EVALUATE
from gdd.evaluation import audit, grid, sources
from gdd.evaluation.audit import Audit
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.report import compare, measured, statistics, tables
from gdd.report.choice import Point
from gdd.report.tables import Section
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, set_file

_METRICS = "metrics.jsonl"
_STAGES = (*DISTILLING, EVALUATE, COMPARE, AUDIT)


@dataclass(frozen=True)
class TrainedStage:
    """A stage that made, or was to make, a generator or a set."""

    name: str  # of run and stage
    stage: str
    config: dict[str, Any]  # the settings as JSON values; empty if nobody kept them
    metrics: list[dict[str, float]]  # a line per logged step
    source: Source | None  # what it made; none before its end


@dataclass(frozen=True)
class ScoredStage:
    """An evaluation or a comparison."""

    name: str  # of run and stage
    config: dict[str, Any]  # the settings as JSON values
    rows: list[Row]  # of its students
    sections: list[Section]  # its tables
    pictures: list[bytes]  # of accuracies, as PNG files
    points: list[Point] = field(default_factory=list)  # of a comparison


@dataclass(frozen=True)
class AuditedStage:
    """An audit of what a stage has made."""

    name: str  # of run and stage
    config: dict[str, Any]  # the settings as JSON values
    audit: Audit
    picture: bytes | None  # a PNG file; none if somebody has removed it


AnyStage = TrainedStage | ScoredStage | AuditedStage


def find_stages(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of stages, each once; a run's folder stands for all of its stages.

    Raises:
        ConfigError: a folder is missing, or holds no stage.
    """
    by_place: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder, expected that of a run, such as runs/digits or its refine")
        stages = [folder] if _holds_stage(folder) else [folder / name for name in _STAGES]
        here = [stage for stage in stages if _holds_stage(stage)]
        if not here:
            raise ConfigError(
                f"{folder} holds no result of gdd train-gan, distill, evaluate, compare or audit, nor does a folder of "
                f"these names in it: {', '.join(_STAGES)}"
            )
        by_place |= {stage.resolve(): stage for stage in here}
    return list(by_place)


def _holds_stage(folder: Path) -> bool:
    results = (generator_file.FILE, set_file.FILE, grid.ROWS, audit.AUDIT_FILE)
    unfinished = folder.name in DISTILLING and (folder / _METRICS).exists()
    return unfinished or any((folder / name).exists() for name in results)


def read_stages(folders: Sequence[Path], mixed: bool = False) -> list[AnyStage]:
    """Read the stages in folders, as `find_stages` finds and `read_stage` reads them, each by its own name."""
    places = find_stages(folders)
    return [read_stage(place, name, mixed) for place, name in zip(places, stage_names(places), strict=True)]


def read_stage(folder: Path, name: str, mixed: bool = False) -> AnyStage:
    """Read a stage's folder, and change nothing there.

    Args:
        folder: as `find_stages` returns it.
        name: of the stage on the page.
        mixed: whether rows of different precision share a table.

    Raises:
        ConfigError: a file is damaged, or a comparison has no tables.
    """
    mark = folder / "config.json"
    stored = checkpoint.read_json(mark).get("config", {}) if mark.exists() else {}
    config = earlier.current_settings(read_as(dict[str, Any], stored, str(mark)))
    if (folder / audit.AUDIT_FILE).exists():
        picture = folder / measured.AUDIT_PICTURE
        return AuditedStage(name, config, audit.read_audit(folder), picture.read_bytes() if picture.exists() else None)
    if (folder / grid.ROWS).exists():
        rows = statistics.require_rows(folder)
        if (folder / compare.TABLES).exists():
            pictures = [(folder / picture).read_bytes() for picture in compare.PICTURES if (folder / picture).exists()]
            sections, points = compare.read_sections(folder), compare.read_points(folder)
            return ScoredStage(name, config, rows, sections, pictures, points)
        if folder.name == COMPARE:
            raise ConfigError(
                f"{folder} holds no {compare.TABLES}: its comparison has not ended or is of an older version; give its "
                "command again, which trains no student twice"
            )
        return ScoredStage(name, config, rows, tables.sections(rows, brief=False, mixed=mixed), _drawn(rows, mixed))
    has_result = any((folder / file).exists() for file in (generator_file.FILE, set_file.FILE))
    source = sources.read(str(folder)) if has_result else None
    origin = source.provenance if source is not None else {}
    stage = str(origin.get("stage") or folder.name)
    return TrainedStage(name, stage, config or origin.get("config", {}), _read_metrics(folder / _METRICS), source)


def _drawn(rows: Sequence[Row], mixed: bool) -> list[bytes]:
    """Return an evaluation's pictures as its rows are now."""
    with tempfile.TemporaryDirectory() as folder:
        paths = tables.write_evaluation(Path(folder), rows, mixed)
        return [path.read_bytes() for path in paths if path.suffix == ".png"]


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the finite numbers of each line; a line cut by a kill is ignored."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            lines.append({name: value for name, value in values.items() if _is_number(value)})
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def stage_names(folders: Sequence[Path]) -> list[str]:
    """Return run and stage of each folder, with as many folders above as tell them apart."""
    depth = 2
    while len({folder.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]) for folder in folders]
