"""Micro batches of images: order, mosaics, sizes, and the threads that make them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from posture.config import DetectionRun, override
from posture.data.feed import image_transforms
from posture.data.feed.image_transforms import GREY, letterbox
from posture.errors import InputError
from posture.models.boxes import Targets
from posture.models.detector_configs import YOLOv5
from posture.train import image_batches
from posture.train.image_batches import ImageBatch, ImageBatches, letterboxed
from tests.support.image_store import SmallImages

PLAIN = {
    "data.mosaic": 0.0,
    "data.resize": 0.0,
    "data.shift": 0.0,
    "data.flip": 0.0,
    "data.hue": 0.0,
    "data.saturation": 0.0,
    "data.value": 0.0,
}


class Streamed:
    """The same images dealt out in shares, in the order that they say."""

    def __init__(self, images: SmallImages, shares: list[list[int]]) -> None:
        self.classes, self.keys, self.boxes, self.labels, self.sizes = (
            images.classes,
            images.keys,
            images.boxes,
            images.labels,
            images.sizes,
        )
        self.files, self.shares = images.files, shares

    def __len__(self) -> int:
        return len(self.keys)

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        assert world_size == len(self.shares)
        for index in self.shares[rank]:
            yield index, self.files[index]

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        return max(len(share) for share in self.shares)


IMAGES = SmallImages(41)


def small_run(**changes: Any) -> DetectionRun:
    """12 images of 64 pixels to a step, 4 epochs; `changes` are dotted, with __ for the dot: `data__mosaic=0.5`."""
    run = DetectionRun(name="small", epochs=4, model=YOLOv5(classes=2, size=64))
    return override(
        run,
        {"scale.global_batch": 12, "scale.amp": "off"}
        | {name.replace("__", "."): value for name, value in changes.items()},
    )


def plain_run(**changes: Any) -> DetectionRun:
    return override(small_run(**changes), PLAIN)


def batches_of(run: DetectionRun, *, rank: int = 0, images: Any = IMAGES) -> ImageBatches:
    return ImageBatches(images, run, rank=rank, world_size=run.scale.workers, validation=IMAGES)


def by_image(batches: ImageBatches, epoch: int, *, start_step: int = 0) -> list[dict[int, tuple[bytes, bytes, bytes]]]:
    """Of each step, what is shown for each image index: pixels, boxes, labels."""
    steps = []
    for step in batches.training(epoch, start_step=start_step):
        shown = {}
        for batch in step:
            for place, index in enumerate(batch.indices.tolist()):
                mine = batch.images == place
                shown[index] = (
                    batch.pixels[place].tobytes(),
                    batch.boxes[mine].tobytes(),
                    batch.labels[mine].tobytes(),
                )
        steps.append(shown)
    return steps


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("prefetch", "images"))]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("mosaic", [0.0, 0.5, 1.0])
def test_any_workers_and_accumulation_show_the_same_images(
    workers: int, micro_batch: int | None, mosaic: float
) -> None:
    """Mosaics too: their partners come from the whole epoch's order."""
    whole = by_image(batches_of(small_run(data__mosaic=mosaic, data__mosaic_buffer=7, data__multi_scale=0.4)), 2)
    assert [len(step) for step in whole] == [12, 12, 12]
    run = small_run(
        data__mosaic=mosaic,
        data__mosaic_buffer=7,
        data__multi_scale=0.4,
        scale__workers=workers,
        scale__micro_batch=micro_batch,
    )
    shares = [batches_of(run, rank=rank) for rank in range(workers)]
    assert {share.steps_per_epoch for share in shares} == {3}
    parts = [by_image(share, 2) for share in shares]
    for step in range(3):
        together = {index: shown for part in parts for index, shown in part[step].items()}
        assert together == whole[step]
    assert all(len(step) == run.scale.accumulation for step in shares[0].training(2))


def test_the_order_is_the_seeds_and_every_epochs_own() -> None:
    orders = [
        [list(step) for step in by_image(batches_of(plain_run(seed=seed)), epoch)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert orders[0] == orders[3] and orders[0] != orders[1] and orders[0] != orders[2]
    flat = [index for step in orders[0] for index in step]
    assert len(set(flat)) == 36


def test_an_image_looks_different_in_every_epoch_and_seed() -> None:
    shown = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        steps = by_image(batches_of(small_run(seed=seed, data__mosaic=0.0)), epoch)
        shown.append({index: pixels for step in steps for index, (pixels, _, _) in step.items()})
    common = set(shown[0]) & set(shown[1]) & set(shown[2])
    assert len(common) > 20 and all(len({views[index] for views in shown}) == 3 for index in common)


def test_a_batch_shows_the_images_it_names_with_their_boxes() -> None:
    for (batch,) in batches_of(plain_run()).training(0):
        assert batch.pixels.shape == (12, 64, 64, 3) and batch.pixels.dtype == np.uint8
        assert (
            batch.boxes.dtype == np.float32
            and batch.labels.dtype == batch.images.dtype == batch.indices.dtype == np.int64
        )
        assert (np.diff(batch.images) >= 0).all() and batch.letterboxes == ()
        for place, index in enumerate(batch.indices.tolist()):
            square, boxes, laid = letterbox(IMAGES.pixels[index], IMAGES.boxes[index], 64)
            rows, columns = slice(laid.dy + 1, 63 - laid.dy), slice(laid.dx + 1, 63 - laid.dx)
            np.testing.assert_array_equal(batch.pixels[place][rows, columns], square[rows, columns])
            wide = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=99) >= 2.1  # others are dropped for learning
            found = batch.boxes[batch.images == place]
            for box, label in zip(boxes[wide], IMAGES.labels[index][wide], strict=True):
                nearest = np.abs(found - box).max(axis=1).argmin()
                np.testing.assert_allclose(found[nearest], box, atol=1.0)
                assert batch.labels[batch.images == place][nearest] == label


def test_tensors_are_what_networks_take() -> None:
    (batch,) = next(steps := batches_of(small_run()).training(0))
    steps.close()
    (inputs,), targets = batch.tensors(small_run(), torch.device("cpu"), epoch=0)
    assert (
        inputs.dtype == torch.float32
        and inputs.shape == (12, 3, 64, 64)
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )
    np.testing.assert_allclose(inputs.permute(0, 2, 3, 1).numpy(), batch.pixels / 255, atol=1e-6)
    assert isinstance(targets, Targets) and targets.count == 12
    for found, expected, kind in zip(
        targets, (batch.boxes, batch.labels, batch.images), (torch.float32, torch.int64, torch.int64), strict=False
    ):
        assert found.dtype == kind
        np.testing.assert_array_equal(found.numpy(), expected)
    assert targets.boxes.min() >= 0 and targets.boxes.max() <= 64 and set(targets.images.tolist()) <= set(range(12))
    assert (
        all((ours == theirs).all() for ours, theirs in zip(batch.targets[:3], targets[:3], strict=True))
        and batch.targets.count == 12
    )


def test_ignore_regions_come_with_their_images() -> None:
    images = SmallImages(12)
    images.ignored = [
        np.float32([[0, 0, number + 5, 8]] * (number % 3)) if number % 3 else np.zeros((0, 4), np.float32)
        for number in range(12)
    ]
    images.ignored_labels = [np.full(number % 3, number % 2) for number in range(12)]
    batches = ImageBatches(images, plain_run(), rank=0, world_size=1, validation=images)
    (trained,) = next(iter(batches.training(0)))
    (judged,) = batches.evaluation()
    for batch in (trained, judged):
        (_, targets), regions = batch.tensors(small_run(), torch.device("cpu")), batch.targets.ignored
        assert (
            targets.ignored.count == 12
            and torch.equal(targets.ignored.boxes, regions.boxes)
            and torch.equal(targets.ignored.images, regions.images)
        )
        for place, index in enumerate(batch.indices.tolist()):
            mine = regions.images == place
            scale = 64 / images.sizes[index].max()
            assert regions.labels[mine].tolist() == images.ignored_labels[index].tolist()
            sides = regions.boxes[mine][:, 2:] - regions.boxes[mine][:, :2]
            height, width = images.sizes[index].tolist()
            expected = [[scale * min(index + 5, width), scale * min(8, height)]] * (index % 3)
            np.testing.assert_allclose(sides, np.array(expected).reshape(-1, 2), atol=1.0)
    images.ignored = [np.zeros((0, 4), np.float32)] * 12
    images.ignored_labels = [np.zeros(0, np.int64)] * 12
    assert (
        next(
            iter(ImageBatches(images, plain_run(), rank=0, world_size=1, validation=images).evaluation())
        ).targets.ignored
        is None
    )


def test_batches_without_any_box() -> None:
    images = SmallImages(12)
    images.boxes, images.labels = [np.zeros((0, 4), np.float32)] * 12, [np.zeros(0, np.int64)] * 12
    batches = ImageBatches(images, small_run(), rank=0, world_size=1, validation=images)
    for batch in [*next(iter(batches.training(0))), *batches.evaluation()]:
        assert batch.boxes.shape == (0, 4) and batch.labels.shape == batch.images.shape == (0,)
        assert batch.targets.count == 12 and batch.targets.boxes.shape == (0, 4)


def test_boxes_of_which_little_remains_are_dropped_as_asked() -> None:
    found = [
        sum(
            len(batch.boxes)
            for step in batches_of(small_run(data__mosaic=0.0, data__least_visible=least)).training(0)
            for batch in step
        )
        for least in (0.0, 0.5, 1.0)
    ]
    assert found[0] > found[1] > found[2] > 0


# Mosaics


def colours_shown(pixels: np.ndarray) -> set[int]:
    """The images whose colour fills part of a square, told by their red (5 times their number)."""
    found = Counter(pixels[..., 0].reshape(-1).tolist())
    return {red // 5 for red, count in found.items() if count > 30 and red % 5 == 0 and red != GREY}


def test_a_mosaic_is_made_of_the_images_that_came_before_it() -> None:
    """Half as large, so that all four are seen; the epoch is a circle."""
    changes = {
        "data.mosaic": 1.0,
        "data.mosaic_buffer": 5,
        "data.mosaic_until": 0.75,
        "data.least_visible": 0.0,
        "data.shift": 0.0,
    }
    batches = batches_of(override(plain_run(scale__micro_batch=4), changes))
    order, several = [], 0
    shown = [(batch, place) for step in batches.training(0) for batch in step for place in range(4)]
    order = [int(batch.indices[place]) for batch, place in shown]
    for position, (batch, place) in enumerate(shown):
        near = {order[position - back] for back in range(6)}
        colours = colours_shown(batch.pixels[place])
        assert colours <= near
        several += len(colours) > 1
        labelled = sum(len(IMAGES.boxes[index]) for index in near)
        assert (batch.images == place).sum() <= labelled
    assert several > 18
    alone = [batch for step in batches.training(3) for batch in step]  # epoch 3 of 4 is past three quarters of them
    assert all(
        colours_shown(batch.pixels[place]) <= {int(batch.indices[place])} for batch in alone for place in range(4)
    )


def test_partners_are_three_others_of_the_circle() -> None:
    batches = batches_of(small_run(data__mosaic_buffer=8, data__mosaic_until=1.0))
    draws = list(batches._ordered(1, 0))
    order = [draw.image.index for draw in draws]
    assert len(draws) == 36 and {len(draw.partners) for draw in draws} == {3}
    distances = Counter()
    for position, draw in enumerate(draws):
        partners = [partner.index for partner in draw.partners]
        before = [order[position - back] for back in range(1, 9)]
        assert len(set(partners)) == 3 and set(partners) <= set(before)
        assert all(file is IMAGES.files[index] for index, file, _ in (draw.image, *draw.partners))
        distances.update(before.index(index) for index in partners)
    assert set(distances) == set(range(8))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_mosaics_is_as_asked(share: float) -> None:
    batches = batches_of(small_run(data__mosaic=share, data__mosaic_until=1.0))
    mosaics = [bool(draw.partners) for epoch in range(4) for draw in batches._ordered(epoch, 0)]
    assert abs(np.mean(mosaics) - share) < 0.1 and (0 < share < 1 or len(set(mosaics)) == 1)


def test_few_images_make_mosaics_too() -> None:
    for count in (1, 2, 3):
        images = SmallImages(count)
        batches = ImageBatches(images, small_run(scale__global_batch=1), rank=0, world_size=1, validation=images)
        assert all(batch.pixels.shape == (1, 64, 64, 3) for step in batches.training(0) for batch in step)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_epoch_goes_on_with_the_same_mosaics(workers: int) -> None:
    run = small_run(scale__workers=workers, data__mosaic_buffer=7, data__multi_scale=0.4)
    for rank in range(workers):
        whole = by_image(batches_of(run, rank=rank), 1)
        again = batches_of(run, rank=rank)
        assert by_image(again, 1, start_step=2) == whole[2:]
        by_image(again, 0)
        assert by_image(again, 1, start_step=1) == whole[1:]  # whatever is kept decoded


def test_each_image_is_decoded_about_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[str] = Counter()
    real = image_transforms.read_image

    def counting(*args: Any, name: str, **options: Any) -> Any:
        decoded[name] += 1
        return real(*args, name=name, **options)

    monkeypatch.setattr(image_batches, "read_image", counting)
    monkeypatch.setattr(image_batches, "THREADS", 1)
    images = SmallImages(300)
    batches = ImageBatches(
        images, small_run(data__mosaic_buffer=24, data__mosaic_until=1.0), rank=0, world_size=1, validation=IMAGES
    )
    for _ in batches.training(0):
        pass
    assert sum(decoded.values()) <= 300 + 24 and set(decoded) == set(images.keys)
    decoded.clear()
    few = ImageBatches(IMAGES, small_run(), rank=0, world_size=1, validation=IMAGES)
    for epoch in range(3):
        for _ in few.training(epoch):
            pass
    assert max(decoded.values()) == 1  # they all fit


# Pasted boxes


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("mosaic", [0.0, 0.5])
def test_any_workers_paste_the_same_boxes(workers: int, mosaic: float) -> None:
    pasting = {"data__mosaic": mosaic, "data__mosaic_buffer": 7, "data__copy_paste": 0.7}
    whole = by_image(batches_of(small_run(**pasting)), 2)
    assert whole != by_image(batches_of(small_run(**pasting | {"data__copy_paste": 0.0})), 2)
    shares = [batches_of(small_run(**pasting, scale__workers=workers), rank=rank) for rank in range(workers)]
    parts = [by_image(share, 2) for share in shares]
    assert [{index: shown for part in parts for index, shown in part[step].items()} for step in range(3)] == whole
    assert by_image(shares[0], 2, start_step=1) == parts[0][1:]  # and go on with them after a stop


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_donors_are_other_images_nearby_as_often_as_asked(share: float, mosaic: float) -> None:
    run = small_run(
        data__copy_paste=share,
        data__mosaic=mosaic,
        data__mosaic_buffer=8,
        data__mosaic_until=0.75,
        scale__global_batch=4,
    )
    batches, pasted = batches_of(run), []
    for epoch in range(3):
        draws = list(batches._ordered(epoch, 0))
        order = [draw.image.index for draw in draws]
        for position, draw in enumerate(draws):
            assert len(draw.donors) == 1 + len(draw.partners) == (4 if mosaic else 1)
            before = {order[position - back] for back in range(1, 9)}
            assert {donor.index for donor in draw.donors if donor is not None} <= before
            pasted += [donor is not None for donor in draw.donors]
    assert abs(np.mean(pasted) - share) < 0.12
    assert {len(draw.donors) for draw in batches._ordered(3, 0)} == {0}, "the last epochs are as in evaluation"


def test_pasted_boxes_are_among_the_targets() -> None:
    plain = {"data__mosaic": 0.0, "data__resize": 0.0, "data__shift": 0.0, "data__least_visible": 0.0}
    counts = [
        sum(
            len(batch.boxes)
            for step in batches_of(small_run(**plain, data__copy_paste=share)).training(0)
            for batch in step
        )
        for share in (0.0, 1.0)
    ]
    assert counts[1] > 1.2 * counts[0]


def test_a_stream_pastes_what_came_before() -> None:
    streamed = Streamed(IMAGES, [list(range(41))])
    run = small_run(data__mosaic_buffer=5, data__copy_paste=1.0)
    whole = by_image(batches_of(run, images=streamed), 0)
    assert by_image(batches_of(run, images=streamed), 0, start_step=2) == whole[2:]
    draws = batches_of(run, images=streamed)._streamed(0, 0)
    for position, draw in zip(range(41), draws, strict=False):
        donors = {donor.index for donor in draw.donors if donor is not None}
        assert donors <= set(range(max(0, position - 5), position)) and bool(donors) == bool(position)


# Sizes


def test_every_step_has_a_size_of_its_own_that_all_workers_share() -> None:
    run = small_run(data__multi_scale=0.5, scale__workers=2, model__size=128)
    shares = [batches_of(run, rank=rank) for rank in range(2)]
    sides = [
        [[batch.pixels.shape[1:3] for step in share.training(epoch) for batch in step] for epoch in range(4)]
        for share in shares
    ]
    assert sides[0] == sides[1]
    assert {side for epoch in sides[0] for side in epoch} <= {(side, side) for side in (64, 96, 128, 160, 192)}
    drawn = [shares[0].side(epoch, step) for epoch in range(20) for step in range(10)]
    assert Counter(drawn).keys() == {64, 96, 128, 160, 192} and min(Counter(drawn).values()) > 20
    assert all(batch.pixels.shape[1:3] == (128, 128) for batch in shares[0].evaluation())


@pytest.mark.parametrize(
    ("size", "share", "sides"),
    [(640, 0.7, range(192, 1089, 32)), (640, 0.1, range(576, 705, 32)), (64, 0.9, (32, 64, 96)), (64, 0.1, (64,))],
)
def test_sizes_are_all_multiples_of_32_in_the_range(size: int, share: float, sides: Any) -> None:
    batches = batches_of(small_run(data__multi_scale=share, model__size=size))
    assert {batches.side(epoch, step) for epoch in range(40) for step in range(20)} == set(sides)


def test_nothing_is_lost_at_the_largest_size() -> None:
    """Kept decoded, images are as large as the largest square: noise of that size comes through untouched."""
    images = SmallImages(24)
    images.pixels = list(np.random.default_rng(0).integers(0, 256, (24, 96, 96, 3), dtype=np.uint8))
    images.files, images.sizes = (
        [cv2.imencode(".png", pixels[..., ::-1])[1].reshape(-1) for pixels in images.pixels],
        np.full((24, 2), 96),
    )
    batches = batches_of(plain_run(data__multi_scale=0.5, scale__global_batch=4), images=images)
    largest = [
        batch for epoch in range(3) for step in batches.training(epoch) for batch in step if batch.pixels.shape[1] == 96
    ]
    assert largest
    for batch in largest:
        np.testing.assert_array_equal(batch.pixels, [images.pixels[index] for index in batch.indices])


def test_without_multi_scale_the_size_is_the_models() -> None:
    assert {batches_of(small_run()).side(epoch, step) for epoch in range(3) for step in range(9)} == {64}


# Evaluation


@pytest.mark.parametrize("world_size", [1, 2, 3, 50])
def test_evaluation_sees_every_image_exactly_once_with_the_way_back(world_size: int) -> None:
    run = small_run(scale__global_batch=50 if world_size == 50 else 12)
    seen = []
    for rank in range(world_size):
        for batch in ImageBatches(
            SmallImages(50), run, rank=rank, world_size=world_size, validation=IMAGES
        ).evaluation():
            assert len(batch.letterboxes) == len(batch.indices) == len(batch.pixels) <= batch.targets.count
            for place, index in enumerate(batch.indices.tolist()):
                seen.append(index)
                square, boxes, laid = letterbox(IMAGES.pixels[index], IMAGES.boxes[index], 64)
                np.testing.assert_array_equal(batch.pixels[place], square)
                np.testing.assert_array_equal(batch.boxes[batch.images == place], boxes)  # all of them, however small
                np.testing.assert_array_equal(batch.labels[batch.images == place], IMAGES.labels[index])
                assert batch.letterboxes[place] == laid
                np.testing.assert_allclose(laid.boxes_to_image(boxes), IMAGES.boxes[index], atol=0.01)
    assert sorted(seen) == list(range(41))


def test_chosen_images_are_letterboxed_alone() -> None:
    streamed = Streamed(IMAGES, [list(range(41))[::-1]])
    chosen = np.array([3, 30, 31, 40])
    for images, expected in ((IMAGES, [3, 30, 31, 40]), (streamed, [40, 31, 30, 3])):
        batches = list(letterboxed(images, chosen, size=64, batch=3))
        assert [batch.indices.tolist() for batch in batches] == [expected[:3], expected[3:]]
    assert list(letterboxed(IMAGES, np.array([], np.int64), size=64, batch=3)) == []


# Streams


def test_a_stream_gives_equal_steps_and_every_image() -> None:
    # 25 images of one worker are 5 steps of 6, and the other one's 16 are 3
    shares = [list(range(16)), list(range(16, 41))]
    streamed = Streamed(IMAGES, shares)
    run = small_run(scale__workers=2)
    parts = [
        [
            index
            for step in batches_of(run, rank=rank, images=streamed).training(0)
            for batch in step
            for index in batch.indices.tolist()
        ]
        for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [30, 30] and {index for part in parts for index in part} == set(range(41))
    assert parts[0] == list(range(16)) + [0, 1, 2, 3, 4, 5] * 2 + [0, 1]


def test_a_stream_resumes_with_the_same_images_and_makes_mosaics_of_what_came_before() -> None:
    streamed = Streamed(IMAGES, [list(range(41))])
    run = small_run(data__mosaic_buffer=5)
    whole = by_image(batches_of(run, images=streamed), 0)
    assert by_image(batches_of(run, images=streamed), 0, start_step=2) == whole[2:]
    draws = batches_of(run, images=streamed)._streamed(0, 0)
    for position, draw in zip(range(41), draws, strict=False):
        partners = {partner.index for partner in draw.partners}
        assert partners <= set(range(max(0, position - 5), position)) or (position == 0 and partners == {0})
        assert len(draw.partners) == 3 and (position < 3 or len(partners) == 3)
    repeats = [draw.repeat for _, draw in zip(range(7), draws, strict=False)]
    assert repeats == [1] * 7
    found = [
        index
        for batch in ImageBatches(streamed, run, rank=0, world_size=1, validation=streamed).evaluation()
        for index in batch.indices.tolist()
    ]
    assert sorted(found) == list(range(41))


# What goes wrong


def test_what_cannot_be_batched_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"scale.global_batch is 42, but there are only 41 training images; choose at most 41"
    ):
        batches_of(small_run(scale__global_batch=42))
    with pytest.raises(InputError, match="micro_batch 4 does not divide the 6 images of each of 2 workers"):
        ImageBatches(IMAGES, small_run(scale__micro_batch=4), rank=0, world_size=2, validation=IMAGES)
    with pytest.raises(InputError, match="no images to validate on"):
        ImageBatches(IMAGES, small_run(), rank=0, world_size=1, validation=SmallImages(0))
    with pytest.raises(InputError, match="worker 0 of 2 got no images"):
        next(batches_of(small_run(scale__workers=2), images=Streamed(IMAGES, [[], list(range(41))])).training(0))


def test_an_image_that_does_not_decode_is_named_and_leaves_no_thread() -> None:
    images = SmallImages(12)
    images.files[5] = np.frombuffer(b"no image", np.uint8)
    batches = ImageBatches(images, small_run(), rank=0, world_size=1, validation=images)
    with pytest.raises(InputError, match=f"the stored image {images.keys[5]} does not decode"):
        list(batches.training(0))
    with pytest.raises(InputError, match=f"the stored image {images.keys[5]} does not decode"):
        list(batches.evaluation())
    assert threads() == []


def test_threads_end_with_whoever_reads() -> None:
    steps = batches_of(small_run()).training(0)
    assert isinstance(next(steps)[0], ImageBatch) and threads()
    steps.close()
    assert threads() == []
    list(batches_of(small_run()).evaluation())
    assert threads() == []
