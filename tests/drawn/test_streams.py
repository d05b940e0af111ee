"""Random numbers of drawing: a pure function of their coordinates."""

from mmreid_jax.drawn import streams


def test_generators_depend_on_all_coordinates_and_nothing_else():
    def number(*coordinates, seed=0, purpose="a"):
        return float(streams.generator(seed, purpose, *coordinates).random())

    drawn = [number(), number(1), number(0, 1), number(0, 0, 1), number(-1), number(1, seed=1), number(1, purpose="b")]
    assert len(set(drawn)) == len(drawn)
    assert number(1) == drawn[1]


def test_white_noise_has_any_size_and_unit_variance():
    for size in ((8, 8), (256, 128), (1500, 30)):
        noise = streams.white_noise(77, *size)
        assert noise.shape == size
        assert abs(noise.std() - 1) < 0.35
