"""A set as a dataset of Hugging Face's `datasets`: one Parquet file, written with pyarrow alone.

The features of the columns stand in the file's schema, as `datasets` itself writes them, so that it finds images and
classes without a card. `gdd.data.arrow` reads the same layout.
"""

import json
from pathlib import Path
from typing import Any

from gdd.data.arrow import METADATA, USUAL
from gdd.data.places import HUB_FOLDER, require_pyarrow
from gdd.formats.export import images_u8, png_files
from gdd.runtime.checkpoint import creating, write_atomically
from gdd.sampling.set_file import SyntheticSet

FILE = f"{HUB_FOLDER}/train-00000-of-00001.parquet"
SOFT_LABEL = "soft_label"
_ROWS = 1000  # of a group, which a reader decodes at once


def export_hugging_face(synthetic: SyntheticSet, folder: Path) -> None:
    """Write the train part into an empty folder: columns image (PNG), label, and any soft_label (K float32).

    Raises:
        ConfigError: pyarrow is missing, or the folder cannot be written.
    """
    require_pyarrow("a dataset of Hugging Face's datasets needs pyarrow to be written")
    import pyarrow as pa
    from pyarrow import parquet

    spec, soft = synthetic.spec, synthetic.soft_labels
    image, label = USUAL["Image"], USUAL["ClassLabel"]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    files = [{"bytes": content, "path": None} for content in png_files(images_u8(synthetic))]
    fields = [pa.field(image, image_type), pa.field(label, pa.int64())]
    columns = [pa.array(files, image_type), pa.array(synthetic.labels.numpy())]
    features: dict[str, Any] = {
        image: {"_type": "Image"},
        label: {"names": list(spec.class_names), "_type": "ClassLabel"},
    }
    if soft is not None:
        kind = pa.list_(pa.float32(), spec.num_classes)
        fields.append(pa.field(SOFT_LABEL, kind))
        values = pa.array(soft.float().flatten().numpy())
        columns.append(pa.FixedSizeListArray.from_arrays(values, type=kind))
        # Versions of datasets from 4 on write List, and read the older name as well.
        number = {"dtype": "float32", "_type": "Value"}
        features[SOFT_LABEL] = {"feature": number, "length": spec.num_classes, "_type": "Sequence"}
    schema = pa.schema(fields, {METADATA: json.dumps({"info": {"features": features}}).encode()})
    table = pa.table(columns, schema=schema)

    path = folder / FILE
    with creating(path):
        write_atomically(path, lambda temporary: parquet.write_table(table, temporary, row_group_size=_ROWS))
