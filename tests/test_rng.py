import ast
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import gdd
from gdd.rng import derive, generator, generators, seeded

PACKAGE = Path(gdd.__file__).parent
OUTSIDE_RNG = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "rng.py"]

# Parts that a careless join or a dropped counter would confuse, none equal to another.
KEYS = [(1, "noise"), (0, "noises"), (10, "noise", 0), (2**40, "noise")]
KEYS += [(0, "noise", *counters) for counters in [(), (0,), (1,), (10,), (11,), (0, 0), (0, 1), (1, 0), (1, 1)]]


def test_a_generator_does_not_depend_on_earlier_draws():
    expected = torch.rand(4, generator=generator(0, "noise", 2))
    torch.rand(100, generator=generator(0, "noise", 1))
    torch.rand(100)
    assert torch.equal(torch.rand(4, generator=generator(0, "noise", 2)), expected)


def test_any_differing_part_gives_other_seeds_and_draws():
    assert len({derive(*key) for key in KEYS}) == len(KEYS)
    assert len({torch.rand(1, generator=generator(*key), dtype=torch.float64).item() for key in KEYS}) == len(KEYS)


def test_many_generators_draw_what_each_alone_draws():
    counters = [(0, 1), (5,), (0, 1), ()]
    # Of three normal numbers torch makes four, and the last must not reach the next generator.
    drawn = [torch.randn(3, generator=reused) for reused in generators(3, "noise", counters)]
    for numbers, values in zip(counters, drawn, strict=True):
        assert torch.equal(values, torch.randn(3, generator=generator(3, "noise", *numbers)))


def test_ten_thousand_steps_have_ten_thousand_seeds_of_63_bits():
    seeds = {derive(0, "noise", step) for step in range(10_000)}
    assert len(seeds) == 10_000
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


def test_a_seed_is_the_same_in_every_version():
    # Stored sets and checkpoints can be made again only as long as this number stays.
    assert derive(0, "noise", 1, 2) == 5740158777851400126


def test_seeded_seeds_the_global_generator_and_restores_it_even_after_an_error():
    before = torch.get_rng_state()
    with suppress(RuntimeError), seeded(0, "init", 1):
        inside = torch.rand(4)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(4, generator=generator(0, "init", 1)))
    assert torch.equal(torch.get_rng_state(), before)


SEEDERS = {"manual_seed", "manual_seed_all", "seed", "seed_all", "set_seed", "default_rng", "RandomState"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "poisson"}
LIKE_DRAWS = {"rand_like", "randn_like", "randint_like"}
IN_PLACE = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"}


def forbidden_calls(source: str) -> list[str]:
    """Return calls that seed, or that draw from a global generator."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [name for name in names if name in ("random", "secrets", "numpy.random", "uuid")]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        text, name = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
        given = any(keyword.arg == "generator" for keyword in node.keywords)
        draws = (text.startswith("torch.") and name in TORCH_DRAWS | LIKE_DRAWS) or name in IN_PLACE
        seeds = name in SEEDERS or text.startswith(("np.random.", "numpy.random.")) or text == "os.urandom"
        if seeds or (draws and not given):
            found.append(text)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "torch.manual_seed(0)",
        "import time\ntorch.cuda.manual_seed_all(int(time.time()))",
        "np.random.seed(int(time.time() * 1000) % 100000)",
        "rng = np.random.default_rng()",
        "import random\nrandom.seed(1)",
        "torch.Generator().seed()",
        "x = torch.randn(3)",
        "x.uniform_(0, 1)",
        "def f():\n    return torch.randperm(len(x))[:3]",
    ],
)
def test_the_scan_finds_seeding_and_global_draws(source):
    assert forbidden_calls(source)


def test_the_scan_lets_named_draws_pass():
    assert not forbidden_calls("from gdd import rng\nx = torch.randn(3, generator=rng.generator(0, 'x'))")


@pytest.mark.parametrize("path", OUTSIDE_RNG, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_outside_rng_seeds_or_draws_globally(path):
    assert forbidden_calls(path.read_text()) == []


def test_rng_itself_never_reads_the_clock():
    imports = list(ast.walk(ast.parse((PACKAGE / "rng.py").read_text())))
    modules = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert modules == {"hashlib", "collections.abc", "contextlib", "torch"}
