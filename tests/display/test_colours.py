"""Colours of classes: fixed by their position, apart from each other, and readable."""

import itertools

import pytest

from posture.display.colours import UNSURE, class_colours, ink


def parts(colour):
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def luminance(colour):
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts(colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_class_keeps_its_colour_if_others_follow_it():
    few, many = class_colours(["run", "jump"]), class_colours([str(number) for number in range(101)])
    assert few == many[:2] and len(set(many)) == 101 and UNSURE not in many
    assert all(colour[0] == "#" and len(colour) == 7 for colour in many)


def test_the_first_colours_are_apart():
    for one, other in itertools.combinations([*class_colours("abcdefghij"), UNSURE], 2):
        assert sum(abs(a - b) for a, b in zip(parts(one), parts(other), strict=True)) > 60, (one, other)


@pytest.mark.parametrize("colour", [*class_colours("x" * 101), UNSURE])
def test_colours_are_seen_on_white_and_black_and_carry_text(colour):
    assert contrast(colour, "#ffffff") > 1.9 and contrast(colour, "#000000") > 1.9
    assert contrast(colour, ink(colour)) >= 4.5
