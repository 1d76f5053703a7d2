"""What the file of a generator, of a set or of samples says of its origin."""

from typing import Any

from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.runtime.device import device_name
from gdd.runtime.environment import versions
from gdd.runtime.run import Run
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator


def run_origin(run: Run, config: Config, dataset: Dataset, stage: str, method: str, seconds: float) -> dict[str, Any]:
    """Return what a generator's or a set's file says of the run that made it; `seconds` includes the stages before.

    Where results went, how the machine was used and what was scored are no part of it.
    """
    settings = {key: value for key, value in to_plain(config).items() if key not in ("run", "evaluate")}
    return {
        "method": method,
        "stage": stage,
        "seed": config.seed,
        "fingerprint": run.fingerprint,
        "data": dataset.fingerprint,
        "seconds": round(seconds, 1),
        "device": device_name(run.device),
        "versions": versions(),
        "config": settings,
    }


def sample_origin(loaded: LoadedGenerator, seed: int) -> dict[str, Any]:
    """Return where a sampled set comes from, as JSON."""
    keys = ("method", "stage", "seed", "fingerprint", "data", "seconds", "imported", "imported_hash", "format")
    known = {key: loaded.provenance[key] for key in keys if key in loaded.provenance}
    return {**known, "generator": loaded.hash, "sample_seed": seed}


def joint_origin(loaded: LoadedGenerator, ensemble: Ensemble) -> dict[str, Any]:
    """Return the parts of a provenance in which the ensemble has its share.

    The seconds of both, none if either is unknown; and the data of both, empty if they are not the same, for then
    either may have been made from what the other held out.
    """
    makers = (loaded.provenance, ensemble.provenance)
    seconds: list[Any] = [maker.get("seconds") for maker in makers]
    data = {maker.get("data", "") for maker in makers}
    return {
        "seconds": None if None in seconds else round(sum(seconds), 1),
        "data": data.pop() if len(data) == 1 else "",
    }
