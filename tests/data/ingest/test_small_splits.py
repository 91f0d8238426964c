import pyarrow as pa
import pytest

from posture.data.ingest.small_splits import small_splits


def segments(**counts):
    """Rows of the table `segments`: `train_a=3` is three segments of class a, each of its own group."""
    return pa.Table.from_pylist(
        [
            {"split": split, "group": f"{split}{label}{number}", "label": label}
            for key, count in counts.items()
            for split, label in [key.split("_")]
            for number in range(count)
        ],
        schema=pa.schema([("split", pa.string()), ("group", pa.string()), ("label", pa.string())]),
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (segments(train_a=50, train_b=50, val_a=10, val_b=10, test_a=10, test_b=10), []),
        (segments(train_a=50, train_b=50, train_background=5, val_a=10, val_b=10, test_a=10, test_b=10), []),
        (segments(), []),
        (segments(test_a=5), []),
        (
            segments(train_a=50, val_a=4, test_a=19),
            [
                "val is 4 segments of 4 groups, one of them 25 points of accuracy: too few to choose epochs and "
                "settings by",
                "test is 19 segments of 19 groups, one of them 5 points of accuracy: too few to tell models apart by",
            ],
        ),
        (
            segments(train_a=50, train_b=9, val_a=20, test_a=20, test_c=1),
            ["val has no segment of b", "test has no segment of b", "train has no segment of c"],
        ),
        (
            segments(train_a=50, test_a=20),
            [
                "val is empty: nothing is there to choose epochs and settings by; a class needs three groups to be in "
                "train, val and "
                "test"
            ],
        ),
        (
            segments(train_a=50, val_a=1, test_a=20),
            [
                "val is 1 segment of 1 group, one of them 100 points of accuracy: too few to choose epochs and "
                "settings by"
            ],
        ),
    ],
)
def test_what_is_told_of_small_splits(rows, told):
    assert small_splits(rows) == told


def test_images_have_several_labels_or_none():
    shown = (("train", ["a", "b"], 30), ("val", ["a"], 30), ("test", [], 3))
    rows = pa.Table.from_pylist([
        {"split": split, "group": str(number % 2), "labels": labels}
        for split, labels, count in shown
        for number in range(count)
    ])
    assert small_splits(rows, "images") == [
        "val has no image of b",
        "test is 3 images of 2 groups: too few to tell models apart by",
        "test has no image of a, b",
    ]
