"""Image datasets of Hugging Face's `datasets` on disk, as Arrow or Parquet files, read with pyarrow alone.

`save_to_disk` writes Arrow streams; `to_parquet` and the Hub have Parquet files. Both carry the columns' features in
their schema: a column of Image holds the bytes of PNG or JPEG files, one of ClassLabel the labels and their names.
"""

import bisect
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gdd.config import ConfigError
from gdd.data.arrays import MOST_RATIO
from gdd.data.encoded import EncodedPart, Listing
from gdd.data.places import hub_folder, note, part_files

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"huggingface"  # of a schema: the features of its columns, as JSON
USUAL = {"Image": "image", "ClassLabel": "label"}  # what columns of a feature are mostly called

_POINTER = b"version https://git-lfs.github.com"  # what a clone without Git LFS has instead of its files
_STATE = "state.json"  # of save_to_disk: which of the folder's files are the dataset's; others are caches

_MOST_UNPACKED = 2**25  # bytes, whatever the file takes: less than of arrays, since image files hardly shrink


class _Group(NamedTuple):
    """Rows that are read at once."""

    path: Path
    first: int  # row of the file
    rows: int
    load: "Callable[[], pa.ChunkedArray]"  # of the images' bytes


class _Columns(NamedTuple):
    image: str
    label: str
    class_names: tuple[str, ...]


class Rows:
    """The images of several files' rows, of which one group at a time is in memory; an `Encoded`."""

    def __init__(self, groups: list[_Group]) -> None:
        self.groups = groups
        self.starts = np.cumsum([0, *(group.rows for group in groups)]).tolist()
        self._loaded: tuple[int, Any] = -1, None
        self._lock = threading.Lock()

    def name(self, index: int) -> str:
        place = self._group_of(index)
        group = self.groups[place]
        return f"row {group.first + index - self.starts[place]} of {group.path}"

    def open(self, index: int) -> bytes:
        place = self._group_of(index)
        with self._lock:
            if self._loaded[0] != place:
                with _reading(self.groups[place].path):
                    values = self.groups[place].load()
                    values.validate(full=True)  # a stranger's offsets may lead anywhere
                self._loaded = place, values
            content = self._loaded[1][index - self.starts[place]].as_py()
        if content is None:
            raise ConfigError(
                f"{self.name(index)} has no image bytes, and its path is not followed; save_to_disk stores the bytes"
            )
        return content

    def files(self, rows: Sequence[int]) -> list[str]:
        return [str(path) for path in dict.fromkeys(group.path for group in self.groups)]

    def _group_of(self, index: int) -> int:
        return bisect.bisect_right(self.starts, index) - 1


def list_arrow(place: Path, label: str | None = None) -> Listing:
    """List a folder of `save_to_disk`, one of Parquet files, or a single file; see `places.part_files`.

    Args:
        place: the folder or file; a clone of the Hub has its Parquet files in a folder of its own.
        label: the column of ClassLabel; None takes the only one, or the one that is called so.

    Raises:
        ConfigError: no train part; a file is damaged, unpacks to far more than it takes, or lacks one column of
            Image and one of ClassLabel; files of different classes; a label that is none of them.
    """
    files = part_files(hub_folder(place), (".parquet", ".arrow"))
    train, columns = _part(files.train, label)
    test = None
    if files.test is not None:
        test, test_columns = _part(files.test, label)
        if test_columns.class_names != columns.class_names:
            raise ConfigError(f"train and test of {place} have different ClassLabel names")
    notes = tuple(note(place, name, _rows(paths, label)) for name, paths in files.unused.items())
    return Listing(place, columns.class_names, train, test, notes)


def _rows(paths: list[Path], label: str | None) -> int | None:
    """Return how many images files hold, None if they cannot be read."""
    try:
        return len(_part(paths, label)[0].labels)
    except ConfigError:
        return None


def _named_by_state(paths: list[Path]) -> list[Path]:
    """Leave out the files that a dataset's state does not list."""
    state = paths[0].parent / _STATE if paths else None
    if state is None or paths[0].suffix.lower() != ".arrow" or not state.is_file():
        return paths
    with _reading(state):
        values = json.loads(state.read_bytes())
        names = [entry["filename"] for entry in values["_data_files"]]
    if values.get("_indices_files"):
        raise ConfigError(f"{state} selects rows by an index, expected a dataset saved after flatten_indices()")
    missing = [name for name in names if name not in {path.name for path in paths}]
    if missing:
        raise ConfigError(f"{paths[0].parent} lacks {missing[0]}, which its {_STATE} lists")
    return [path for path in paths if path.name in names]


def _part(paths: list[Path], label: str | None) -> tuple[EncodedPart, _Columns]:
    paths = _named_by_state(paths)
    if len({path.suffix.lower() for path in paths}) > 1:
        raise ConfigError(f"{paths[0].parent} holds both Arrow and Parquet files, expected one kind")
    groups: list[_Group] = []
    labels: list[np.ndarray] = []
    expected: _Columns | None = None
    for path in paths:
        with _reading(path):
            columns, file_groups, values = (_parquet if path.suffix.lower() == ".parquet" else _stream)(path, label)
            if expected is not None and columns != expected:
                raise ConfigError(f"{path} has other columns or ClassLabel names than {paths[0]}")
            expected = columns
            groups += file_groups
            labels.append(_labels(values, columns, path))
    if expected is None or sum(map(len, labels)) == 0:
        raise ConfigError(f"{paths[0] if paths else 'the test part'} holds no rows")
    whole = torch.from_numpy(np.concatenate(labels))
    return EncodedPart(Rows(groups), torch.arange(len(whole)), whole), expected


def _parquet(path: Path, label: str | None) -> "tuple[_Columns, list[_Group], pa.ChunkedArray]":
    from pyarrow import parquet

    columns = _columns(parquet.read_schema(path), path, label)
    leaf = f"{columns.image}.bytes"
    # An image that occurs a million times stays one: so a small file cannot fill the memory.
    file = parquet.ParquetFile(path, read_dictionary=[leaf])
    size = path.stat().st_size
    if file.metadata.num_rows > size:
        raise ConfigError(f"{path} claims {file.metadata.num_rows} rows in {size} bytes")
    _require_no_bomb(sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)), size, path)

    def load(number: int) -> "pa.ChunkedArray":
        return file.read_row_group(number, columns=[leaf]).column(0).flatten()[0]

    groups, first = [], 0
    for number in range(file.num_row_groups):
        count = file.metadata.row_group(number).num_rows
        groups.append(_Group(path, first, count, lambda number=number: load(number)))  # type: ignore[misc]
        first += count
    return columns, groups, file.read(columns=[columns.label]).column(0)


def _stream(path: Path, label: str | None) -> "tuple[_Columns, list[_Group], pa.ChunkedArray]":
    import pyarrow as pa

    size = path.stat().st_size
    groups, labels, first, unpacked = [], [], 0, 0
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:  # rows stay in the file until they are asked for
        columns = _columns(reader.schema, path, label)
        for batch in reader:
            unpacked += batch.nbytes
            _require_no_bomb(unpacked, size, path)
            batch.validate(full=True)
            image = pa.chunked_array([batch.column(columns.image)]).flatten()
            values = image[batch.schema.field(columns.image).type.get_field_index("bytes")]
            groups.append(_Group(path, first, len(batch), lambda values=values: values))  # type: ignore[misc]
            labels.append(batch.column(columns.label))
            first += len(batch)
    return columns, groups, pa.chunked_array(labels, reader.schema.field(columns.label).type)


def _require_no_bomb(unpacked: int, size: int, path: Path) -> None:
    if unpacked > max(_MOST_UNPACKED, MOST_RATIO * size):
        raise ConfigError(f"{path} unpacks from {size} bytes to {unpacked}")


def _columns(schema: "pa.Schema", path: Path, wanted: str | None) -> _Columns:
    """Return the columns of images and labels by their features; of the labels' the wanted one."""
    import pyarrow as pa

    described = (schema.metadata or {}).get(METADATA)
    if described is None:
        raise ConfigError(f"{path} has no features of Hugging Face's datasets in its schema")
    features = json.loads(described)["info"]["features"]
    image = _only("Image", USUAL["Image"], features, schema, path)
    label = _only("ClassLabel", wanted or USUAL["ClassLabel"], features, schema, path, wanted is not None)
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ConfigError(f"{path}: column {image!r} is {kind}, expected a struct with the bytes of image files")
    if not pa.types.is_integer(schema.field(label).type):
        raise ConfigError(f"{path}: column {label!r} is {schema.field(label).type}, expected integers")
    class_names = features[label].get("names")
    valid = isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)
    if not valid or len({*class_names}) != len(class_names):
        raise ConfigError(f"{path}: ClassLabel {label!r} has names {class_names!r:.80}, expected different texts")
    return _Columns(image, label, tuple(class_names))


def _only(
    kind: str, usual: str, features: dict[str, Any], schema: "pa.Schema", path: Path, wanted: bool = False
) -> str:
    """Return the column of a kind that is called so; if it is not wanted by name, the only one will do."""
    names = [name for name, feature in features.items() if feature.get("_type") == kind and name in schema.names]
    if usual in names:
        return usual
    if len(names) == 1 and not wanted:
        return names[0]
    listed = f"{len(names)} columns of {kind} ({', '.join(names)})" if names else f"no column of {kind}"
    if wanted:
        raise ConfigError(f"{path} has {listed}, but data.label is {usual!r}")
    choice = f": choose one, e.g. --data.label {names[0]}" if names and kind == "ClassLabel" else ""
    raise ConfigError(f"{path} has {listed}, expected one, or one called {usual!r}{choice}")


def _labels(values: "pa.ChunkedArray", columns: _Columns, path: Path) -> np.ndarray:
    """Return labels (N,) int64."""
    values.validate(full=True)
    count = len(columns.class_names)
    expected = f"expected 0 to {count - 1}, those of the {count} names of {columns.label!r}"
    if values.null_count:
        raise ConfigError(f"{path} has {values.null_count} rows without a label, {expected}")
    labels = values.to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise ConfigError(f"row {wrong[0]} of {path} has label {labels[wrong[0]]}, {expected}")
    return labels


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow or a parser of JSON says of damaged bytes into one sentence."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if path.is_file() and path.stat().st_size < 1000 and path.read_bytes().startswith(_POINTER):
            raise ConfigError(f"{path} is a pointer of Git LFS: git lfs pull fetches the file itself") from error
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ConfigError(f"{path} cannot be read ({reason})") from error
