import ast
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import gdd
from gdd.rng import Draws, derive, generator, normal_rows, philox, seeded

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


WORD = 0xFFFFFFFF
PI = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI[:4], PI[4:], (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
@pytest.mark.parametrize("kind", [int, lambda word: np.array([[word]]), lambda word: torch.tensor([[word]])])
def test_philox_has_the_known_answers_of_its_authors(kind, counter, key, words):
    """The vectors of Random123, kat_vectors: philox4x32 of 10 rounds."""
    assert tuple(int(torch.as_tensor(word).sum()) for word in philox([*map(kind, counter)], key)) == words


class TestDraws:
    def test_they_go_on_and_begin_anew_with_each_counter(self):
        draws = Draws(3, "noise", 5)
        first, second = draws.words(8), draws.words(8)
        assert torch.equal(torch.cat([first, second]), Draws(3, "noise", 5).words(16))
        others = [Draws(*key).words(8) for key in ((3, "noise", 6), (3, "noises", 5), (4, "noise", 5), (3, "noise"))]
        assert len(torch.unique(torch.cat([first, second, *others]))) == 48

    def test_counters_beyond_a_word_are_refused(self):
        for counters in ((-1,), (2**32,), (1, 2, 3, 4)):
            with pytest.raises(ValueError, match="expected at most three numbers"):
                Draws(0, "noise", *counters)
        for counters, each in (((1, 2, 3), range(1)), ((), range(-1, 2))):
            with pytest.raises(ValueError, match="expected at most three numbers"):
                Draws(0, "noise", *counters, each=each)
        with pytest.raises(ValueError, match="there are 2 seeds and each of 2 numbers"):
            Draws([0, 1], "noise", each=range(2))

    def test_a_number_for_the_host_is_the_first_of_a_block(self):
        draws = Draws(1, "noise", 2)
        hosted = [draws.whole(1000) for _ in range(50)]
        assert hosted == ((Draws(1, "noise", 2).words(200)[::4] * 1000) >> 32).tolist()

    def test_uniform_numbers_are_even(self):
        numbers = Draws(0, "noise").uniform(10, 20_000)
        assert 0 <= numbers.min() < numbers.max() < 1
        assert torch.histc(numbers, 20, 0, 1).sub(10_000).abs().max() < 4.5 * 100 * math.sqrt(0.95)
        assert numbers.diff(dim=0).mean().abs() < 0.01  # neighbours in one counter

    def test_normal_numbers_have_their_moments_and_no_neighbour(self):
        numbers = Draws(0, "noise").normal(400_000).double()
        for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
            spread = math.sqrt(math.prod(range(1, 2 * power, 2)) - moment**2)
            assert abs(float((numbers**power).mean()) - moment) < 4.5 * spread / math.sqrt(len(numbers))
        for distance in (1, 2, 3, 4):
            assert abs(float((numbers[:-distance] * numbers[distance:]).mean())) < 4.5 / math.sqrt(len(numbers))
        assert Draws(0, "noise").normal(3, 7).shape == (3, 7)

    def test_whole_numbers_and_places_come_as_often_as_they_should(self):
        counts = Draws(0, "noise").integers(7, 70_000).bincount(minlength=7)
        assert counts.sub(10_000).abs().max() < 4.5 * math.sqrt(70_000 * 6 / 49)
        places = [Draws(0, "noise", step).choice([1.0, 0.0, 3.0]) for step in range(4000)]
        assert places.count(1) == 0
        assert abs(places.count(0) - 1000) < 4.5 * math.sqrt(4000 * 3 / 16)

    def test_a_permutation_has_each_number_once_in_any_order(self):
        orders = [tuple(Draws(0, "noise", step).permutation(3).tolist()) for step in range(6000)]
        assert len({*orders}) == 6
        assert max(abs(orders.count(order) - 1000) for order in {*orders}) < 4.5 * math.sqrt(6000 * 5 / 36)
        assert sorted(Draws(0, "noise").permutation(1000).tolist()) == [*range(1000)]

    def test_streams_side_by_side_are_each_of_them_alone(self):
        each, counts = range(4, 9, 2), torch.tensor([5, 3, 7])
        together, alone = Draws(2, "noise", 1, each=each), [Draws(2, "noise", 1, one) for one in each]
        assert together.wholes(10**6) == [one.whole(10**6) for one in alone]
        assert torch.equal(together.uniform(2, 3), torch.stack([one.uniform(2, 3) for one in alone]))
        orders = Draws(2, "noise", 1, each=each).permutations(counts, 7)
        for order, one, count in zip(orders, each, counts.tolist(), strict=True):
            assert torch.equal(order[:count], Draws(2, "noise", 1, one).permutation(count))

    def test_rows_are_those_of_their_counters(self):
        first, second = torch.tensor([0, 9, 2]), torch.tensor([5, 2**40, 0])
        rows = normal_rows(7, "noise", first, second, 10)
        assert torch.equal(rows[0], Draws(7, "noise", 0, 5).normal(10))
        assert torch.equal(rows[1], Draws(7, "noise", 9, 0, 2**8).normal(10))
        assert torch.equal(rows[2:], normal_rows(7, "noise", first[2:], second[2:], 10))


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
    calculate = {"bisect", "hashlib", "itertools", "math", "numpy", "torch"}
    assert modules == {*calculate, "collections.abc", "contextlib", "typing"}
