"""What a generator's or a set's file says of its origin."""

from typing import Any

from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.runtime.device import device_name
from gdd.runtime.environment import versions
from gdd.runtime.run import Run


def origin_of(run: Run, config: Config, dataset: Dataset, stage: str, method: str, seconds: float) -> dict[str, Any]:
    """Return what a generator's or a set's file says of its origin; `seconds` includes the stages before.

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
