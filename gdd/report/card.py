"""A card, in Markdown, beside every generator and every set: what it is, how it was made, what it is worth."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gdd.config import ConfigError
from gdd.config.stages import AUDIT, EVALUATE
from gdd.evaluation import audit, sources
from gdd.evaluation.row import Row
from gdd.evaluation.sources import REAL_NAMES, Source
from gdd.formats import webdataset
from gdd.formats.plain import PARQUET
from gdd.report import replicates, subject
from gdd.report.subject import Export, Subject
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, set_file

logger = logging.getLogger(__name__)

NAME = "README.md"  # of a folder's card
MARK = "<!-- Written by gdd, which may write it anew. Without this line it is yours, and gdd leaves it as it is. -->"
_CLASSES = 20  # that are named
_HASH_NAMES = {"generator": "Weights' hash", "shards": "Hash of the generator"}
# What the Hub calls numbers of images; each begins where the one before ends.
_SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7}
_MORE = "10M<n<100M"
_TAGS = ["dataset-distillation", "gdd"]
# An absolute path, or one below a home: its folders may name a machine or a user. URLs are none.
_PATH = re.compile(r"(?<![\w.:/\\])(?:~\w*|[A-Za-z]:)?[/\\](?:[^\s/\\]+[/\\]+)*([^\s/\\]*)")


@dataclass(frozen=True)
class ResultTable:
    """Accuracies of the subject."""

    title: str
    body: Markup
    notes: Sequence[str]


def write(path: Path | str, rows: Sequence[Row] | None = None) -> Path | None:
    """Write the card of a generator or a set, and return its path; None if a card is there that is not gdd's.

    Args:
        path: the folder of a finished stage or of whole shards, whose card is its README.md; or the file of a generator
            or a set, whose card lies beside it under its name and ends in .md.
        rows: of students; results are taken from those of the file and of real images. None: of a stage's folder, those
            of its run's evaluation.

    Raises:
        ConfigError: there is no generator, set or manifest of shards, it is damaged, or the card cannot be written.
    """
    path = Path(path)
    if (path / webdataset.MANIFEST).is_file():
        return _save(path / NAME, text(subject.of_shards(path)))
    source = sources.read(str(path))
    assert source.path is not None
    about = subject.of_source(source, "set" if source.generator is None else "generator", source.path.name)
    if not path.is_dir():
        stem = path.stem if path.suffix == ".safetensors" else path.name
        return _save(path.with_name(f"{stem}.md"), text(about, rows or ()))
    run = path.resolve().parent
    return _save(path / NAME, text(about, _rows(run) if rows is None else rows, read_audit_notes(run / AUDIT, about)))


def _rows(run: Path) -> Sequence[Row]:
    """Return the rows of a run's evaluation; none without one."""
    if not (run / EVALUATE).is_dir():
        return ()
    from gdd.evaluation import grid

    return grid.read_rows(run / EVALUATE)


def write_stages(run: Path) -> list[Path]:
    """Write the cards of a run's finished stages, as `write` does, and return the paths of those that are written."""
    names = generator_file.FILE, set_file.FILE
    stages = sorted(folder for folder in run.iterdir() if any((folder / name).exists() for name in names))
    return [path for path in map(write, stages) if path is not None]


def write_export(source: Source, folder: Path, layout: Export) -> Path | None:
    """Write the card of a set that was exported into a folder, as `write` does."""
    return _save(folder / NAME, text(subject.of_source(source, layout, folder.resolve().name)))


def hub_text(source: Source, name: str) -> str:
    """Return the card of a repository of the Hub, with what evaluation and audit of the source's run have found.

    Args:
        source: a generator or a set that was read from its file, be it in the folder of a stage or not.
        name: hub:USER/NAME or hub:datasets/USER/NAME.
    """
    assert source.path is not None
    about = subject.of_source(source, "set" if source.generator is None else "generator", name)
    run = source.path.resolve().parent.parent
    return text(about, _rows(run), read_audit_notes(run / AUDIT, about))


def _save(path: Path, content: str) -> Path | None:
    with checkpoint.creating(path):
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            logger.info("%s is kept: it is not gdd's", path)
            return None
        checkpoint.write_atomically(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))
    return path


def text(about: Subject, rows: Sequence[Row] = (), audited: Sequence[str] = ()) -> str:
    """Return a card.

    Args:
        about: the generator or the set.
        rows: of students; those of the subject and of real images under the same conditions are used.
        audited: sentences on copies and privacy, of `read_audit_notes`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escaped,
    )
    content = environment.get_template("card.md.jinja").render(
        about=about,
        front=Markup(_front_matter(about)) if about.is_on_hub else "",
        mark=Markup(MARK),
        what="real images" if about.is_real else "synthetic images",
        commands=Markup(subject.commands(about)),
        snippet=Markup(subject.snippet(about)),
        notes=subject.usage_notes(about),
        facts=_how_made(about),
        tables=_results(about, rows),
        measure=Markup(subject.measure(about)),
        audited=audited,
        licence=about.licence.sentence,
    )
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def _front_matter(about: Subject) -> str:
    """Return what the Hub and `datasets` read, as YAML."""
    licence, of = about.licence.identifier, [about.spec.name] if about.is_known else None
    values: dict[str, Any] = {
        "license": licence if licence != subject.UNKNOWN or about.layout == "hf" else None,
        **(_of_model(of) if about.layout == "generator" else _of_dataset(about, of)),
    }
    given = {key: value for key, value in values.items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


def _of_model(of: list[str] | None) -> dict[str, Any]:
    return {"datasets": of, "tags": _TAGS}


def _of_dataset(about: Subject, of: list[str] | None) -> dict[str, Any]:
    images = (about.ipc or 0) * about.spec.num_classes
    name = about.name.rpartition("/")[2]
    values: dict[str, Any] = {
        "pretty_name": clean(f"{name} ({about.spec.name})"),
        "task_categories": ["image-classification"],
        "size_categories": [next((name for name, end in _SIZES.items() if images < end), _MORE)],
        "tags": [*_TAGS, *([] if about.is_real else ["synthetic"])],
    }
    if about.layout == "hf":
        return {**values, "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": PARQUET}]}]}
    return {**values, "source_datasets": of, "viewer": False}  # the Hub's viewer shows no safetensors


def _how_made(about: Subject) -> list[tuple[str, str]]:
    """Return what the file says of its making, as terms and values."""
    spec, origin = about.spec, about.provenance
    more_classes = f", … ({spec.num_classes})" if spec.num_classes > _CLASSES else ""
    changed = replicates.changed(origin)
    stated = {
        "Data": spec.in_words,
        "Classes": ", ".join(spec.class_names[:_CLASSES]) + more_classes,
        "Method": origin.get("method"),
        "Stage": origin.get("stage"),
        "Chosen": ", ".join(about.curation),
        "Settings other than the defaults": None if changed is None else _settings(changed),
        "Seed": origin.get("seed"),
        "Iterations": origin.get("iterations"),
        "Sampled from the generator": origin.get("generator") if about.layout != "shards" else None,
        "Seed of the samples": origin.get("sample_seed"),
        "Imported from": origin.get("imported"),
        "Hash of what was imported": origin.get("imported_hash"),
        "Time": _duration(origin.get("seconds")),
        "Machine": origin.get("device"),
        "Versions": _pairs(origin.get("versions")),
        _HASH_NAMES.get(about.layout, "Set's hash"): about.hash,
        "Dataset fingerprint": origin.get("data"),
        "Settings fingerprint": origin.get("fingerprint"),
    }
    return [(term, str(value)) for term, value in stated.items() if value not in (None, "")]


def _settings(changed: dict[str, str]) -> str:
    """Return settings in words; of a path only its last part, for its folders may name a user."""
    parts = {key: re.split(r"[/\\]", value.rstrip("/\\"))[-1] for key, value in changed.items()}
    return ", ".join(f"{key} {value}" for key, value in parts.items()) or "none"


def _duration(seconds: object) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{seconds:.1f} seconds" if seconds < 60 else f"{seconds / 60:,.1f} minutes"


def _pairs(values: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, dict) else ""


def _results(about: Subject, rows: Sequence[Row]) -> list[ResultTable]:
    """Return the subject's accuracies beside those of real images, the floor and the ceilings, as tables."""
    name = "this generator" if about.layout == "generator" else "this set"
    scored = [replace(row, source=name) for row in rows if row.source_hash == about.hash]
    if not scored:
        return []
    from gdd.report import tables  # takes seconds to import

    conditions = {(row.recipe_hash, row.precision) for row in scored}
    real = [row for row in rows if row.kind in REAL_NAMES and (row.recipe_hash, row.precision) in conditions]
    shown = []
    for section in tables.sections([*scored, *real], brief=False):
        headers, *lines = [[escaped(cell) for cell in line] for line in [section.headers, *section.lines]]
        body = tables.markdown(replace(section, headers=headers, lines=lines))
        shown.append(ResultTable(section.title, Markup(body), section.notes))
    return shown


def read_audit_notes(folder: Path, about: Subject) -> list[str]:
    """Return what the audit in a folder says of copies and privacy; nothing without one of this subject."""
    if not (folder / audit.AUDIT_FILE).is_file():
        return []
    try:
        audited = audit.read_audit(folder)
    except ConfigError as error:
        logger.warning("no audit is told in the card: %s", error)
        return []
    if audited.source.hash != about.hash:
        return []
    from gdd.report.measured import audit_notes  # takes seconds to import

    return audit_notes(audited)


def clean(value: object) -> str:
    """Return a text on one line, absolute paths cut to their last part, characters that are not to be seen as `?`."""
    words = " ".join(_PATH.sub(r"\1", str(value)).split())
    return "".join(character if character.isprintable() else "?" for character in words)


def escaped(value: object) -> str:
    """Return a text that Markdown and HTML show as it is; what is Markup stays as it is.

    Files may be strangers', and a card is made to be shown to others.
    """
    if isinstance(value, Markup):
        return str(value)
    return re.sub(r"([\\`*\[\]])", r"\\\1", escape(clean(value), quote=False))
