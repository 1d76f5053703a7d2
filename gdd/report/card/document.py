"""The card itself: what its file says, put into a template that escapes it, and where it lies."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gdd.config.stages import AUDIT, EVALUATE
from gdd.evaluation import sources
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.formats import webdataset
from gdd.formats.export import PARQUET
from gdd.report import licences
from gdd.report.card import facts, subject, use
from gdd.report.card.markdown import clean, escaped
from gdd.report.card.subject import Export, Subject
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, set_file

logger = logging.getLogger(__name__)

NAME = "README.md"  # of a folder's card
MARK = "<!-- Written by gdd, which may write it anew. Without this line it is yours, and gdd leaves it as it is. -->"
# What the Hub calls numbers of images; each begins where the one before ends.
_SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7}
_MORE = "10M<n<100M"


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
    if rows is None and (run / EVALUATE).is_dir():
        from gdd.evaluation import grid

        rows = grid.read_rows(run / EVALUATE)
    return _save(path / NAME, text(about, rows or (), facts.audited(run / AUDIT, about)))


def write_stages(run: Path) -> list[Path]:
    """Write the cards of a run's finished stages, as `write` does, and return the paths of those that are written."""
    names = generator_file.FILE, set_file.FILE
    stages = sorted(folder for folder in run.iterdir() if any((folder / name).exists() for name in names))
    return [path for path in map(write, stages) if path is not None]


def write_export(source: Source, folder: Path, layout: Export) -> Path | None:
    """Write the card of a set that was exported into a folder, as `write` does."""
    return _save(folder / NAME, text(subject.of_source(source, layout, folder.resolve().name)))


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
        audited: sentences on copies and privacy, of `facts.audited`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escaped,
    )
    content = environment.get_template("card.md.jinja").render(
        about=about,
        front=Markup(_front_matter(about)) if about.layout == "hf" else "",
        mark=Markup(MARK),
        what="real images" if about.is_real else "synthetic images",
        commands=Markup(use.commands(about)),
        snippet=Markup(use.snippet(about)),
        notes=use.notes(about),
        facts=facts.made(about),
        tables=facts.results(about, rows),
        measure=Markup(use.measure(about)),
        audited=audited,
        licence=_licence(about).sentence,
    )
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def _licence(about: Subject) -> licences.Licence:
    return licences.of(about.spec.name, about.is_known)


def _front_matter(about: Subject) -> str:
    """Return what the Hub and `datasets` read, as YAML."""
    images = (about.ipc or 0) * about.spec.num_classes
    tags = ["dataset-distillation", "gdd"] + ["synthetic"] * (not about.is_real)
    values = {
        "license": _licence(about).identifier,
        "pretty_name": clean(f"{about.name} ({about.spec.name})"),
        "task_categories": ["image-classification"],
        "size_categories": [next((name for name, end in _SIZES.items() if images < end), _MORE)],
        "tags": tags,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": PARQUET}]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
