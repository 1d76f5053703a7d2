"""The header of a .safetensors file of gdd, read within bounds and without torch."""

import json
from pathlib import Path
from typing import Any

from gdd.config import ConfigError

MOST_HEADER = 2**23  # bytes; parsed, it takes ten times the memory


def read_header(path: Path) -> dict[str, Any]:
    """Return what gdd has written into a file's header.

    Raises:
        ConfigError: the file is missing, its header is damaged, or it is another program's.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER:
                raise ValueError(f"its header would have {length} bytes")
            header = json.loads(file.read(length))
        metadata = json.loads(header["__metadata__"]["gdd"])
        if not isinstance(metadata, dict):
            raise KeyError("gdd")
        return metadata
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a .safetensors file was expected there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged or no .safetensors file ({error})") from error
    except (KeyError, TypeError):
        raise ConfigError(f"{path} was not written by gdd: its header has no gdd metadata") from None
