import math

import pytest

from gdd.training.schedule import KeepRate, lr_factor


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_decays_from_1_to_almost_0(kind):
    shares = [lr_factor(kind, step, 8) for step in range(8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert lr_factor(kind, 4, 8) == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.2
    assert lr_factor(kind, 8, 8) == pytest.approx(0)


def test_cosine_is_the_papers():
    assert [lr_factor("cosine", step, 3) for step in range(3)] == pytest.approx([1, 0.75, 0.25])


def test_linear_falls_evenly():
    assert [lr_factor("linear", step, 4) for step in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_step_is_a_tenth_from_half_of_the_steps_on(steps):
    assert [lr_factor("step", step, steps) for step in range(steps)] == [
        0.1 if 2 * step >= steps else 1 for step in range(steps)
    ]


def test_constant_stays():
    assert {lr_factor("constant", step, 5) for step in range(5)} == {1.0}


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_warmup_rises_evenly_and_the_rest_follows(kind):
    shares = [lr_factor(kind, step, 10, warmup=3) for step in range(10)]
    assert shares[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert shares[3:] == pytest.approx([lr_factor(kind, step, 7) for step in range(7)])


def test_a_warmup_longer_than_the_stage_only_rises():
    assert [lr_factor("cosine", step, 2, warmup=4) for step in range(2)] == pytest.approx([0.2, 0.4])
    assert math.isfinite(lr_factor("cosine", 4, 4, warmup=4))


@pytest.mark.parametrize(
    ("rate", "falls"),
    [
        (KeepRate(), (1, 0.9, 0.8, 0.7, 0.6, 0.5)),
        (KeepRate(decrement=0.13, minimum=0.35), (1, 0.87, 0.74, 0.61, 0.48, 0.35)),
        (KeepRate(decrement=0.2, minimum=0.55), (1, 0.8, 0.6, 0.55, 0.55, 0.55)),
    ],
)
def test_paths_are_kept_in_three_phases_as_released(rate: KeepRate, falls: tuple[float, ...]):
    """4,000 epochs, of which the last 1,000 have a rate of their own; it falls every 500."""
    for number, value in enumerate(falls):
        assert rate.at(500 * number, 4000) == pytest.approx(value)
        assert rate.at(500 * number + 499, 4000) == pytest.approx(value)
    assert {rate.at(step, 4000) for step in (3000, 3500, 3999)} == {0.8}


def test_phases_can_be_shortened_and_levelled():
    rate = KeepRate(period=0.1, decrement=0.5, minimum=0.0, final=1.0)
    assert [rate.at(step, 300) for step in (0, 29, 30, 59, 60, 224, 225, 299)] == [1, 1, 0.5, 0.5, 0, 0, 1, 1]
    assert [KeepRate().at(step, 1) for step in range(1)] == [1]
    assert [KeepRate().at(step, 3) for step in range(3)] == pytest.approx([1, 0.9, 0.8])


def test_a_cyclic_rate_restarts_at_every_eighth_with_a_peak_that_decays():
    """4,000 epochs of one step: a cycle is 1,000 long, warmed up for 100, and broken off at 500."""
    shares = [lr_factor("cyclic", step, 4000) for step in range(4000)]
    parts = [shares[500 * number : 500 * (number + 1)] for number in range(6)] + [shares[3000:]]
    peaks = [1, 0.8, 0.8**2, 0.8**3, 0.8**4, 0.8**5, 0.8**5 / 10]
    assert [max(part) for part in parts] == pytest.approx(peaks)
    for part, peak in zip(parts, peaks, strict=True):
        assert part.index(max(part)) == 100
        assert part[:101] == sorted(part[:101])
        assert part[100:] == sorted(part[100:], reverse=True)
        assert part[0] == pytest.approx(peak / 101)
    released = (1 + math.cos(math.pi * 400 / 900)) / 2  # where a cycle is broken off, of its peak
    assert [part[-1] / peak for part, peak in zip(parts[:6], peaks[:6], strict=True)] == pytest.approx(
        [released] * 6, abs=0.01
    )
    assert shares[-1] < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 12, 13, 20, 100, 300])
def test_a_cyclic_rate_is_never_negative_and_its_last_phase_begins_with_that_of_dropping(steps):
    shares = [lr_factor("cyclic", step, steps) for step in range(steps)]
    assert all(0 <= value <= 1 for value in shares)
    last = [KeepRate(final=0.123).at(step, steps) == 0.123 for step in range(steps)]
    assert [value <= 0.8**5 / 10 for value in shares] == last
