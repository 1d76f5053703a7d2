"""Distilling and scoring from Python: what `gdd distill` and `gdd compare` do, with objects for files and tables."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import process
from pathlib import Path
from typing import Any

import torch
from pandas import DataFrame

from gdd import checks, pipeline
from gdd.api.data import Data, data_settings, set_of
from gdd.api.generator import DistilledGenerator, load_generator
from gdd.api.image_set import ImageSet, load_set
from gdd.config import Config, ConfigError, read_as, to_plain
from gdd.config.stages import EVALUATE
from gdd.data.spec import DatasetSpec
from gdd.evaluation import sources
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.runtime.device import make_accelerator, with_threads
from gdd.sampling import set_file
from gdd.sampling.set_file import SyntheticSet


@dataclass(frozen=True)
class Scores:
    """Test accuracies of fresh students."""

    folder: Path  # rows.jsonl, tables and pictures
    rows: DataFrame  # a line per student: what it was trained on and how, its accuracy in percent, its seconds
    # A line per source, IPC, protocol and architecture: accuracy, half_width of its 95 % t-interval and std in percent,
    # n students that have one, and how many failed.
    summary: DataFrame

    def __repr__(self) -> str:
        return f"Scores of {len(self.rows)} students in {self.folder}\n{self.summary.to_string(index=False)}"


@dataclass(frozen=True)
class Distilled:
    """What a run distilled."""

    folder: Path  # of the run's last stage
    file: Path  # the generator, or the set of gradient matching
    scores: Scores | None  # none with score=False

    def load(self) -> DistilledGenerator | ImageSet:
        """Return the generator, or the set."""
        return load_set(self.file) if self.file.name == set_file.FILE else load_generator(self.file)


_NAMED = (str, Path, Distilled, DistilledGenerator, ImageSet)  # sources that are no arrays


def distill(data: Data = "digits", test: Data | None = None, **settings: Any) -> Distilled:
    """Distil a dataset, as `gdd distill` does. The same call goes on where an earlier one was stopped.

    Args:
        data: a dataset's name (digits, mnist, ...), the path of a folder of images or of an .npz file; or images in
            memory: (images, labels), or a torch Dataset of such pairs. Images are uint8, bool, or float in [0, 1], of
            shape (N, H, W), (N, H, W, C) or (N, C, H, W), or Pillow's; labels are whole numbers 0..K-1 of shape (N,) or
            (N, 1). Images in memory are written into the run's folder, uncompressed. A mapping gives other settings
            too: `{"name": (images, labels), "size": [16, 16]}`.
        test: the test part of images in memory; without it a fifth of `data` is held out.
        **settings: as in a YAML file (docs/configuration.md), such as `name="mine", pretrain={"steps": 500}, seed=1`.

    Raises:
        ConfigError: a setting, the data or a file is not as expected; the sentence names it.
    """
    config = _config({**settings, "data": data}, test, distilled=True)
    scored = pipeline.read_sources(config) if config.score else []
    with _opened(config, pipeline.stages_of(config), scored) as inputs:
        folder, rows = pipeline.distill_and_score(config, inputs)
        return Distilled(folder, sources.source_file(folder), _scores(config, rows) if rows else None)


def evaluate(named: Any, data: Data | None = None, test: Data | None = None, **settings: Any) -> Scores:
    """Train fresh students on each source and score them on the real test images, as `gdd evaluate` does.

    Random real images and all of them are scored beside the sources: the floor and the ceiling. On CPUs students train
    in processes that import the calling script, whose calls must stand below `if __name__ == "__main__":`.

    Args:
        named: a source, a list of them, or a mapping from names in the tables to sources. A source is what `distill`,
            `load_set`, `load_generator` or `DistilledGenerator.sample` returned; the path of a run folder, a set or a
            generator, of a folder of images by class or an .npz file; zoo:NAME, hub:USER/NAME, hub:datasets/USER/NAME,
            real:random, real:herded, real:crops, real:fraction=SHARE, real:all or real:stream; or a tuple of arrays
            (images, labels) as `distill` takes them, with equally many images of each class, of which floats may leave
            [0, 1] as far as optimising pixels takes them.
        data: the real dataset, as `distill` takes it; without it, that of the first source that says.
        test: as `distill` takes it.
        **settings: as `distill` takes them, such as `evaluate={"archs": ["convnet3"], "seeds": [0, 1, 2]}`.

    Raises:
        ConfigError: a source, a setting, the data or a file is not as expected; the sentence names it.
    """
    section = settings.get("evaluate")
    if isinstance(section, Mapping) and "sources" in section:
        raise ConfigError("evaluate.sources is given, expected the sources as the first argument")
    config = _config(settings if data is None else {**settings, "data": data}, test)
    given = _by_label(named)
    teacher = config.evaluate.teacher
    known = {label: _source(label, source, teacher) for label, source in given.items() if not _is_arrays(source)}
    if data is None:
        config = pipeline.with_data_of_sources(config, [*known.values()])
    if len(known) < len(given):
        spec = pipeline.open_data(config.data, config.seed).spec
        known |= {label: _of_arrays(label, source, spec) for label, source in given.items() if label not in known}
    with _opened(config, [EVALUATE], [known[label] for label in given]) as inputs:
        return _scores(config, pipeline.evaluate(config, inputs))


def _config(settings: dict[str, Any], test: Data | None, distilled: bool = False) -> Config:
    """Return the config, with images in memory written into the run's folder."""
    data = settings.pop("data", {})
    config = read_settings(settings)
    section = data_settings(data, test, config.run.root / config.name, config.run.overwrite)
    return read_settings({**settings, "data": section}, distilled, scored=True)


def read_settings(settings: Mapping[str, Any], distilled: bool = False, scored: bool = False) -> Config:
    """Return the config of nested settings, as a YAML file has them; what is not given keeps its default.

    Args:
        settings: such as `{"seed": 1, "pretrain": {"steps": 500}}`.
        distilled: require the generator that distilling starts from to exist.
        scored: require the sources that are named to exist.

    Raises:
        ConfigError: a key that is none, a value out of its range, an unknown network, or a file that is not there.
    """
    values = _merged(to_plain(Config()), settings, "")
    config = read_as(Config, values)
    checks.check_names(config)
    checks.check_files(config, distilled, scored)
    return config


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the defaults, overridden by what is given; ConfigError names an unknown key."""
    merged = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            close = difflib.get_close_matches(str(key), defaults, n=1)
            raise ConfigError(f"{place}{key} is no setting, expected {close[0] if close else ', '.join(defaults)}")
        if isinstance(defaults[key], Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{place}{key} is {value!r}, expected a mapping of {', '.join(defaults[key])}")
            value = _merged(defaults[key], value, f"{place}{key}.")
        merged[key] = str(value) if isinstance(value, Path) else value
    return merged


def _by_label(named: Any) -> dict[str, Any]:
    """Return the sources by their names in tables."""
    if isinstance(named, Mapping):
        return {str(label): source for label, source in named.items()}
    if _is_arrays(named) or not isinstance(named, tuple | list):
        named = [named]
    labels = [_label(source, number) for number, source in enumerate(named, 1)]
    return dict(zip(labels, named, strict=True))


def _label(source: Any, number: int) -> str:
    if isinstance(source, Distilled):
        return str(source.folder)
    return str(source) if isinstance(source, str | Path) else f"set {number}"


def _is_arrays(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], _NAMED)


def _source(label: str, source: Any, teacher: str) -> Source:
    if isinstance(source, str | Path | Distilled):
        return sources.read(str(source.file if isinstance(source, Distilled) else source), label, teacher)
    if isinstance(source, DistilledGenerator):
        return Source(label, "generator", source.loaded.hash, generator=source.loaded)
    if isinstance(source, ImageSet):
        return Source(label, "set", source.stored.hash, synthetic=source.stored)
    raise ConfigError(f"source {label!r} is a {type(source).__name__}, expected a path, a name, a set or a generator")


def _of_arrays(label: str, arrays: tuple[Any, Any], spec: DatasetSpec) -> Source:
    """Return the source of images and labels; ConfigError if they are no set of the dataset's."""
    images, labels = set_of(arrays, f"source {label!r}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= spec.num_classes:
        raise ConfigError(f"source {label!r} has labels {low} to {high}, expected 0 to {spec.num_classes - 1}")
    counts = labels.bincount(minlength=spec.num_classes)
    if counts.min() != counts.max():
        raise ConfigError(f"source {label!r} has {counts.tolist()} images by class, expected equally many of each")
    with checks.said_of(f"source {label!r}"):
        stored = SyntheticSet(images, labels, spec, int(counts[0]), {"method": label})
    return Source(label, "set", stored.hash, synthetic=stored)


@contextmanager
def _opened(config: Config, stages: Sequence[str], named: Sequence[Source]) -> Iterator[pipeline.Inputs]:
    """Open the inputs; afterwards torch's threads and determinism are the caller's again."""
    if getattr(process.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise ConfigError('gdd was called while a process started; call it below `if __name__ == "__main__":`')
    deterministic = torch.are_deterministic_algorithms_enabled()
    with with_threads(torch.get_num_threads()):
        try:
            # Its process group is left to the caller, who may go on with it.
            with pipeline.open_inputs(config, make_accelerator(config.run), stages, named) as inputs:
                yield inputs
        finally:
            torch.use_deterministic_algorithms(deterministic)


def _scores(config: Config, rows: list[Row]) -> Scores:
    from gdd.report import statistics

    table = statistics.frame(rows)
    lines = statistics.summarise(table)
    estimates = DataFrame([vars(estimate) for estimate in lines["accuracy"]], index=lines.index)
    estimates = estimates[["mean", "std", "half_width", "n", "failed"]]
    where = lines[["source", "ipc", "protocol", "arch"]]
    summary = where.join(estimates.rename(columns={"mean": "accuracy"})).reset_index(drop=True)
    return Scores(config.run.root / config.name / EVALUATE, table.convert_dtypes(), summary)
