"""What a card says of how its subject was made and of what it is worth."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from gdd.config import ConfigError
from gdd.evaluation import audit
from gdd.evaluation.row import Row
from gdd.evaluation.sources import REAL_NAMES
from gdd.report import replicates
from gdd.report.card.markdown import escaped
from gdd.report.card.subject import Subject

logger = logging.getLogger(__name__)

Facts = list[tuple[str, str]]  # terms and what is said of them
_CLASSES = 20  # that are named
_NAMES = {"generator": "Weights' hash", "shards": "Hash of the generator"}


@dataclass(frozen=True)
class Table:
    """One of the results."""

    title: str
    body: Markup
    notes: Sequence[str]


def made(subject: Subject) -> Facts:
    """Return how it was made; what the file does not say is left out."""
    spec, origin = subject.spec, subject.provenance
    named = ", ".join(spec.class_names[:_CLASSES]) + f", … ({spec.num_classes})" * (spec.num_classes > _CLASSES)
    changed = replicates.changed(origin)
    stated = {
        "Data": spec.in_words,
        "Classes": named,
        "Method": origin.get("method"),
        "Stage": origin.get("stage"),
        "Chosen": ", ".join(subject.curation),
        "Settings other than the defaults": None if changed is None else _listed(changed),
        "Seed": origin.get("seed"),
        "Iterations": origin.get("iterations"),
        "Sampled from the generator": origin.get("generator") if subject.layout != "shards" else None,
        "Seed of the samples": origin.get("sample_seed"),
        "Imported from": origin.get("imported"),
        "Time": _duration(origin.get("seconds")),
        "Machine": origin.get("device"),
        "Versions": _pairs(origin.get("versions")),
        _NAMES.get(subject.layout, "Set's hash"): subject.hash,
        "Dataset fingerprint": origin.get("data"),
        "Settings fingerprint": origin.get("fingerprint"),
    }
    return [(term, str(value)) for term, value in stated.items() if value not in (None, "")]


def _listed(changed: dict[str, str]) -> str:
    """Return settings in words; of a path only its last part, for its folders may name a user."""
    parts = {key: re.split(r"[/\\]", value.rstrip("/\\"))[-1] for key, value in changed.items()}
    return ", ".join(f"{key} {value}" for key, value in parts.items()) or "none"


def _duration(seconds: object) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{seconds:.1f} seconds" if seconds < 60 else f"{seconds / 60:,.1f} minutes"


def _pairs(values: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, dict) else ""


def results(subject: Subject, rows: Sequence[Row]) -> list[Table]:
    """Return the subject's accuracies beside those of real images, the floor and the ceilings, as tables."""
    what = "this generator" if subject.layout == "generator" else "this set"
    own = [replace(row, source=what) for row in rows if row.source_hash == subject.hash]
    if not own:
        return []
    from gdd.report import tables  # takes seconds to import

    conditions = {(row.recipe_hash, row.precision) for row in own}
    real = [row for row in rows if row.kind in REAL_NAMES and (row.recipe_hash, row.precision) in conditions]
    found = []
    for section in tables.sections([*own, *real], brief=False):
        cells = replace(
            section,
            headers=[escaped(header) for header in section.headers],
            lines=[[escaped(cell) for cell in line] for line in section.lines],
        )
        found.append(Table(section.title, Markup(tables.markdown(cells)), section.notes))
    return found


def audited(folder: Path, subject: Subject) -> list[str]:
    """Return what the audit in a folder says of copies and privacy; nothing without one that is of the subject."""
    if not (folder / audit.RESULT).is_file():
        return []
    try:
        found = audit.read(folder)
    except ConfigError as error:
        logger.warning("no audit is told in the card: %s", error)
        return []
    if found.source.hash != subject.hash:
        return []
    from gdd.report.audit import compared, sentences  # takes seconds to import

    return [*sentences(found), compared(found)]
