"""The benchmarks fit the package that they measure; what they measure is for their users."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path))["__doc__"]


def toy(name: str) -> dict[str, object]:
    """Run a benchmark at its smallest sizes and return the JSON that it prints last."""
    path = BENCHMARKS[0].with_name(name)
    done = subprocess.run([sys.executable, path, "--toy"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_peak_has_a_machine_and_rates():
    result = toy("peak.py")
    assert result["threads"] == 1
    rates = {key: rate for key, rate in result.items() if key.endswith("GFLOP/s")}
    assert {"float32 matrix product GFLOP/s", "float32 convolution GFLOP/s"} <= set(rates)
    assert min(rates.values()) > 0
    assert set(result) == {"device", "threads", *rates}


def test_sampling_has_a_rate_of_every_way():
    result = toy("sampling.py")
    facts = {"device", "threads", "shape", "width", "images"}
    rates = {"images/s", "share of the peak", "rate / plain"}
    assert set(result) == {*facts, *rates, "GFLOP per image", "peak GFLOP/s", "peak memory MB"}
    for figures in map(result.get, rates):
        assert set(figures) == {"set", "stream", "shards", "plain"}
    assert min(result["images/s"].values()) > 0
    assert result["rate / plain"]["plain"] == 1
    # Products of a generator of width 4 for 8x8 pixels: pixels times kernel times channels, of its maps in turn.
    into_base, channels = (100 + 10) * 4, 4 * 4
    upsampled = (1 + 4 + 16) * 16 * channels  # a transposed convolution spreads every pixel of the smaller map
    convolved = (3 * 4 + 16) * 9 * channels
    rendered = 64 * 9 * 4
    assert result["GFLOP per image"] == pytest.approx(2 * (into_base + upsampled + convolved + rendered) / 1e9)


def test_on_a_cpu_sides_are_processes_of_their_own_by_turns_and_have_medians(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS[0].parent)
    in_turn = runpy.run_path(str(BENCHMARKS[0].with_name("sides.py")))["in_turn"]
    script, turns = tmp_path / "script.py", tmp_path / "turns"
    script.write_text(
        "import json, sys\n"
        "_, flag, side, path = sys.argv\n"
        "assert flag == '--side'\n"
        "print(side, file=open(path, 'a'))\n"
        "print('words')\n"
        "print(json.dumps({'turn': len(open(path).readlines())}))\n"
    )
    assert in_turn(str(script), ["one", "other"], 3, [str(turns)], None) == {"one": {"turn": 3}, "other": {"turn": 4}}
    assert turns.read_text().split() == ["one", "other"] * 3


@pytest.mark.slow
def test_all_parts_for_a_gpu_leave_their_figures_and_are_done_once(tmp_path):
    path = BENCHMARKS[0].with_name("gpu.py")
    parts = ("peak", "student", "gan", "refine", "matching", "together", "precision")  # others are tested elsewhere

    # What a process of its own prints on a CPU; in a test the sides are measured in one, as on a GPU.
    side = [sys.executable, path.with_name("gan.py"), "--side", "float32 eager", "--toy"]
    printed = json.loads(subprocess.run(side, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert printed.keys() == {"seconds", "memory", "peak"}

    def run(*parts: str) -> str:
        command = [sys.executable, path, *parts, "--out", tmp_path, "--toy"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run(*parts)
    found = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert {name.partition("-")[0] for name in found} == {*parts}
    precision = found.pop("precision")
    assert min(rates["float32"] for rates in precision["images/s"].values()) > 0
    slower = [name for name, of in precision["images/s"].items() if of[of["auto"]] < 0.95 * of["float32"]]
    assert precision["auto slower than float32"] == slower  # at toy sizes chance decides whether there are any
    for name, result in found.items():
        assert "cpu" in result["device"]
        shares = [figures for title, figures in result.items() if "share of the peak" in title]
        assert shares or name == "peak"
        assert all(0 < share < 10 for figures in shares for share in figures.values())
        memory = [figures for title, figures in result.items() if "peak memory" in title]
        assert len(memory) >= (name != "peak")
        assert all(figure > 0 for figures in memory for figure in figures.values())
        stands_in = name.startswith(("gan", "refine", "matching"))
        assert result.get("data") == ("random" if stands_in else None)
    assert found["together-convnet3"]["ratio"]["float32 eager"] > 0
    assert not run("student")
