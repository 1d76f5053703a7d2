"""The page itself: what the runs hold, put into a template that escapes it."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import gdd
from gdd.config import ConfigError, DataConfig, read_as
from gdd.config.stages import PRETRAIN, REFINE
from gdd.data.readers import Dataset
from gdd.evaluation.sources import Source
from gdd.report import audit
from gdd.report.page import curves, facts, runs, samples
from gdd.report.page.curves import Chart
from gdd.report.page.facts import Facts
from gdd.report.page.runs import Audited, Scored, Stage, Trained
from gdd.report.page.samples import Gallery
from gdd.report.tables import Section
from gdd.runtime.checkpoint import creating, write_atomically
from gdd.runtime.environment import git_revision

Opener = Callable[[DataConfig, int], Dataset]  # of data settings and a seed, as pipeline.open_data
_HERE = Path(__file__).parent
_NUMBER = re.compile(r"(?:anew: )?([+-]?[\d,]*\.?\d+)")


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
    folded: bool = False  # whether its gallery is shown only when asked for


def write(path: Path, folders: Sequence[Path], open_data: Opener, mixed: bool = False) -> int:
    """Write the page of run folders and return its bytes.

    Args:
        path: of the page.
        folders: of stages, or of runs with several.
        open_data: opens real images; they are shown only if they are those that a stage was distilled from.
        mixed: whether rows of different precision share a table.

    Raises:
        ConfigError: a folder holds no stage, a file is damaged, or the page cannot be written.
    """
    found = runs.find(folders)
    stages = [runs.read(folder, name, mixed) for folder, name in zip(found, runs.names(found), strict=True)]
    data = _Data(open_data)
    parts = [_part(stage, stages, data) for stage in stages]
    text = _rendered(parts, facts.costs(stages))
    with creating(path):
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return len(text.encode())


def _run(name: str) -> str:
    """Return the run's part of a stage's name."""
    return name.rpartition("/")[0]


def _is_refined(stage: Stage, others: Sequence[Stage]) -> bool:
    """Tell whether a stage's generator is one that another stage of its run has refined."""
    stages = {(_run(one.name), one.stage) for one in others if isinstance(one, Trained) and one.source is not None}
    return isinstance(stage, Trained) and stage.stage == PRETRAIN and (_run(stage.name), REFINE) in stages


class _Data:
    """Opens each dataset once."""

    def __init__(self, open_data: Opener) -> None:
        self.open_data = open_data
        self.opened: dict[str, Dataset] = {}

    def of(self, stage: Trained) -> Dataset:
        """Return what a stage was distilled from; ConfigError if that is not to be had."""
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


def _part(stage: Stage, stages: Sequence[Stage], data: _Data) -> _Part:
    config = json.dumps(stage.config, indent=2) if stage.config else ""
    told = stage.name, facts.settings(stage), config, facts.provenance(stage)
    if isinstance(stage, Scored):
        return _Part(*told, sections=stage.sections, pictures=[*map(samples.data_uri, stage.pictures)])
    if isinstance(stage, Audited):
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
    gallery = samples.gallery(stage.source, dataset, samples.MOST_BYTES // len(_made(stages)))
    shown, folded = Gallery(gallery.classes, [*note, *gallery.notes]), _is_refined(stage, stages)
    return _Part(*told, gallery=shown, charts=charts, folded=folded)


def _audit(stage: Audited, stages: Sequence[Stage]) -> Section:
    """Return the table of an audit, which says so if it is of nothing that the page shows."""
    table, hashes = audit.section(stage.found), [source.hash for source in _made(stages)]
    if not hashes or stage.found.source.hash in hashes:
        return table
    return replace(table, notes=[f"This {stage.found.source.kind} is none of those shown here.", *table.notes])


def _made(stages: Sequence[Stage]) -> list[Source]:
    """Return the generators and sets of the stages."""
    return [stage.source for stage in stages if isinstance(stage, Trained) and stage.source is not None]


def _rendered(parts: Sequence[_Part], costs: Sequence[Section]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sort_value": sort_value, "numeric": numeric}
    # What stands in these files is ours; all else is escaped.
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.jinja").render(
        parts=parts,
        costs=costs,
        title=", ".join(dict.fromkeys(_run(part.name) for part in parts)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        curves=curves,
        made_with=f"gdd {gdd.__version__}" + (f", git {git_revision()}" if git_revision() else ""),
    )


def _hash(text: str) -> str:
    """Return how a content security policy names the one inline text that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def sort_value(cell: str) -> float | None:
    """Return the number that a cell begins with, the mean of an interval; infinity of all images, none of a text."""
    if cell == "all":
        return math.inf
    number = _NUMBER.match(cell.replace("−", "-"))
    return float(number[1].replace(",", "")) if number else None


def numeric(lines: Sequence[Sequence[str]], column: int) -> bool:
    """Tell whether a table's column is one of numbers; the first names lines."""
    return column > 0 and any(sort_value(line[column]) is not None for line in lines)
