import numpy as np
import pytest
import ray

from posture.data.feed.images import Images, StreamedImages, index_images
from posture.data.feed.shards import open_index
from posture.distributed.feed import feed
from tests.support.image_store import make_images, write_image_store


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return index_images(
        write_image_store(tmp_path_factory.mktemp("images") / "store", make_images(50), files=3), "train"
    )


def test_workers_get_the_images_that_this_process_reads(index, ray_cluster):
    here = open_index(index, feed="materialize")
    (item,) = feed([index], mode="auto")

    @ray.remote(num_cpus=0.5)
    def on_a_worker(item):
        there = item.open()
        assert isinstance(there, Images)
        return [there.encoded(number).tobytes() for number in range(len(there))], there.boxes, there.image(3)

    files, boxes, image = ray.get(on_a_worker.remote(item))
    assert files == [here.encoded(number).tobytes() for number in range(len(here))]
    np.testing.assert_array_equal(image, here.image(3))
    for theirs, ours in zip(boxes, here.boxes, strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_streaming_can_be_asked_for(index, ray_cluster):
    (item,) = feed([index], mode="stream")
    opened = item.open()
    assert (
        item.shards is None
        and isinstance(opened, StreamedImages)
        and len(list(opened.stream(0, 0, 1, 0))) == len(index)
    )
