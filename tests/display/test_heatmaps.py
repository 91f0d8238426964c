import numpy as np

from posture.display.heatmaps import flow_colours, heated, over_frames, over_time, stretched


def test_weights_over_time_stand_in_the_middle_of_their_frames():
    np.testing.assert_allclose(over_time(np.array([1.0, 3.0]), 8), [1, 1, 1.25, 1.75, 2.25, 2.75, 3, 3])
    np.testing.assert_allclose(over_time(np.array([0.5]), 4), [0.5] * 4)
    np.testing.assert_allclose(over_time(np.array([1.0, 2.0, 5.0]), 3), [1, 2, 5])


def test_a_map_over_frames_keeps_its_places_its_times_and_its_range():
    values = np.zeros((2, 3, 4), dtype=np.float32)
    values[0, 0, 0], values[1, 2, 3] = 1.0, 2.0
    large = over_frames(values, 8, (60, 120))
    assert large.shape == (8, 60, 120) and large.min() >= 0 and large.max() <= 2
    first, last = (np.array(np.unravel_index(large[frame].argmax(), (60, 120))) for frame in (0, 7))
    assert (first < (20, 30)).all() and (last >= (40, 90)).all()
    np.testing.assert_allclose(over_frames(np.full((1, 3, 3), 0.7), 4, (30, 30)), 0.7, rtol=1e-6)


def test_heat_leaves_cold_places_grey_and_colours_hot_ones():
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    heat = np.zeros((2, 16, 16), dtype=np.float32)
    heat[:, :, 8:] = 1.0
    images = heated(frames, heat)
    assert images.dtype == np.uint8 and images.shape == frames.shape
    cold, hot = images[:, :, :8].astype(int), images[:, :, 8:].astype(int)
    assert np.ptp(cold, axis=-1).max() <= 1 and cold.max() < 0.6 * 255
    # inferno's hottest is a pale yellow
    assert hot.mean() > 1.5 * cold.mean() and (hot[..., 0] - hot[..., 2]).mean() > 20
    assert stretched(np.array([2.0, 4.0, 3.0])).tolist() == [0, 1, 0.5] and not stretched(np.full(3, 0.4)).any()


def test_motion_is_white_where_there_is_none_and_coloured_by_direction():
    flow = np.zeros((8, 8, 2), dtype=np.float32)
    flow[:, 4:6, 0], flow[:, 6:, 0] = 5.0, -5.0
    colours = flow_colours(flow, (8, 8)).astype(int)
    assert (colours[:, :3] == 255).all()
    right, left = colours[4, 4], colours[4, 7]
    assert right.argmax() == 0 and left.argmin() == 0  # red to the right, cyan to the left
