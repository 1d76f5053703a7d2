"""The size of the tests' shards, and the sentence of a refusal."""

IPC, SIZE = 7, 8  # 21 samples of 3 classes: shards of 8, 8 and 5


def refusal(result: tuple[int, str, str]) -> str:
    """Return the one sentence with which a command refused."""
    code, _, error = result
    assert code == 2
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("gdd: ")]
    return line
