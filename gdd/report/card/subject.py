"""What a card is about: a generator, a stored set, shards, or a set in another format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gdd.config import earlier
from gdd.data.places import NAMES
from gdd.data.spec import DatasetSpec
from gdd.evaluation.sources import Source
from gdd.formats import webdataset

Export = Literal["folder", "hf"]
Layout = Literal["generator", "set", "shards", Export]


@dataclass(frozen=True)
class Subject:
    """What its file says, and what that is called."""

    layout: Layout
    name: str  # of its file or folder, without the folders above
    spec: DatasetSpec  # the dataset that it stands for
    hash: str  # of the generator or the set; of shards, of their generator
    bytes: int  # of the generator's file, of all shards, or of a set's images and labels
    provenance: dict[str, Any]
    ipc: int | None = None  # images per class; none of a generator
    shards: int = 0  # how many
    soft: bool = False  # whether it holds soft labels
    optimised: bool = False  # whether its pixels were optimised, so that they may leave [0, 1], or are rounded here
    curation: Sequence[str] = ()  # how samples were chosen, in words

    @property
    def is_real(self) -> bool:
        """Whether its images are real ones that were chosen."""
        return self.provenance.get("method") == "real images"

    @property
    def is_known(self) -> bool:
        """Whether it stands for a public dataset that gdd knows, by the name that the data were asked for with."""
        data = self.provenance.get("config", {}).get("data", {})
        return self.spec.name in NAMES and data.get("name", self.spec.name) in NAMES


def of_source(source: Source, layout: Layout, name: str) -> Subject:
    """Return what there is to say of a generator or a set, in a file or folder of that name."""
    if source.generator is not None:
        made = source.generator
        return Subject(layout, name, made.spec, made.hash, made.bytes, made.provenance)
    assert source.synthetic is not None
    held = source.synthetic
    return Subject(
        layout,
        name,
        held.spec,
        held.hash,
        held.bytes,
        held.provenance,
        held.ipc,
        soft=held.soft_labels is not None and layout != "folder",
        optimised=held.images.is_floating_point(),
        curation=source.curation,
    )


def of_shards(folder: Path) -> Subject:
    """Return the same of a folder of whole shards; ConfigError if its manifest is damaged."""
    plan, values = webdataset.read_plan(folder / webdataset.MANIFEST)
    found, origin = webdataset.totals(folder, plan), values.get("provenance")
    provenance = earlier.provenance({**origin, "sample_seed": plan.seed}) if isinstance(origin, dict) else {}
    provenance.pop("config", None)  # nobody has checked it, and samples carry none
    # Not the folder's name: shards of one plan are the same wherever they lie, and so is their card.
    return Subject("shards", "shards", plan.spec, plan.generator, found.bytes, provenance, plan.ipc, plan.shards)
