"""Dogs, cats, horses and cows: about one unit high when they stand, facing right, their feet at y = 0.

The four share one body plan, whose measures are in BREEDS, and one table of gaits; a head is sketched on its own
and put on whatever body the action needs. Birds, ducks and rabbits are in small_animals.py.
"""

import dataclasses
import math
import random

from .palette import Palette, darker, lighter, mix
from .sketch import Color, Point, Sketch, jointed

DARK = (46, 38, 44)
NOSE = (60, 48, 52)
PINK = (238, 160, 156)
HORN = (240, 226, 196)


@dataclasses.dataclass(frozen=True)
class Breed:
    """Measures of a body."""

    spine: tuple[Point, Point, Point]  # from rump to chest
    girth: tuple[float, float, float]  # along the spine
    neck: tuple[float, float, float, float]  # degrees above the horizontal, length, width at chest, width at head
    tilt: tuple[float, float]  # of the head in degrees: as a rule, while grazing
    leg: float
    leg_width: tuple[float, float, float]
    tail: tuple[Point, ...]  # from its root
    tail_width: tuple[float, ...]


BREEDS = {
    "dog": Breed(
        spine=((-0.42, 0.52), (-0.1, 0.54), (0.26, 0.54)), girth=(0.27, 0.27, 0.34), neck=(50, 0.33, 0.3, 0.19),
        tilt=(0, -40), leg=0.44, leg_width=(0.16, 0.1, 0.08),
        tail=((0, 0), (-0.16, 0.1), (-0.24, 0.3)), tail_width=(0.09, 0.075, 0.03)),
    "cat": Breed(
        spine=((-0.42, 0.42), (-0.1, 0.46), (0.26, 0.43)), girth=(0.26, 0.25, 0.26), neck=(48, 0.28, 0.24, 0.18),
        tilt=(0, -40), leg=0.36, leg_width=(0.13, 0.085, 0.075),
        tail=((0, 0), (-0.24, 0.04), (-0.34, 0.3), (-0.24, 0.52)), tail_width=(0.075, 0.07, 0.065, 0.05)),
    "horse": Breed(
        spine=((-0.42, 0.6), (-0.06, 0.58), (0.3, 0.6)), girth=(0.29, 0.27, 0.3), neck=(52, 0.46, 0.31, 0.14),
        tilt=(-62, -64), leg=0.54, leg_width=(0.16, 0.075, 0.06),
        tail=((0, 0.04), (-0.12, 0.0), (-0.17, -0.22), (-0.13, -0.4)), tail_width=(0.06, 0.11, 0.13, 0.03)),
    "cow": Breed(
        spine=((-0.46, 0.56), (-0.06, 0.56), (0.36, 0.57)), girth=(0.36, 0.4, 0.36), neck=(24, 0.28, 0.36, 0.2),
        tilt=(-30, -52), leg=0.42, leg_width=(0.15, 0.095, 0.085),
        tail=((0, 0.1), (-0.1, 0.02), (-0.12, -0.25), (-0.1, -0.36)), tail_width=(0.045, 0.035, 0.03, 0.07)),
}
HOOFED = ("horse", "cow")


@dataclasses.dataclass(frozen=True)
class Gait:
    """Angles in degrees; of each leg, near and far: forward from hanging down, how far its lower part bends back."""

    front: tuple[tuple[float, float], tuple[float, float]] = ((0, 0), (6, 0))
    hind: tuple[tuple[float, float], tuple[float, float]] = ((12, 20), (20, 26))
    pitch: float = 0  # of the body, chest up
    neck: float = 0  # added to the breed's
    lift: float = 0  # of the lowest foot above the ground, not an angle
    grazing: bool = False


GAITS = {
    "stand": Gait(),
    "walk": Gait(((26, 6), (-20, 10)), ((-14, 12), (34, 26))),
    "run": Gait(((58, 8), (30, 66)), ((-48, 6), (-20, 24)), pitch=5, neck=-12, lift=0.05),
    "jump": Gait(((62, 92), (76, 84)), ((-36, 8), (-22, 14)), pitch=20, neck=-10, lift=0.18),
    "ball": Gait(((64, 40), (84, 50)), ((-6, 26), (6, 32)), pitch=24, neck=2),
    "graze": Gait(((14, 0), (-10, 6)), neck=-98, grazing=True),
}


@dataclasses.dataclass(frozen=True)
class Coat:
    """The colours of an animal, lit: its coat, what is paler, and what is darker, such as a mane."""

    main: Color
    pale: Color
    dark: Color
    seed: int


PALER = {"brown": (222, 184, 142), "orange": (252, 220, 176), "gray": (206, 210, 216)}
DARKER = {"white": (196, 190, 190), "black": (24, 24, 32)}


def coat(name: str, paint: Color, palette: Palette, rng: random.Random) -> Coat:
    """The coat that a colour word means."""
    main = palette.figure(paint)
    dark = palette.figure(DARKER[name]) if name in DARKER else darker(main, 0.42)
    return Coat(main, palette.figure(PALER.get(name, paint)), dark, rng.randrange(1000))


def quadruped(kind: str, action: str, look: Coat) -> Sketch:
    """A dog, cat, horse or cow."""
    if action in RESTING:
        return RESTING[action](kind, look)
    breed, gait = BREEDS[kind], GAITS[action]
    pitch = math.radians(gait.pitch)
    spine = [_turned(point, breed.spine[1], pitch) for point in breed.spine]
    (rump_x, rump_y), (chest_x, chest_y), low = spine[0], spine[-1], breed.girth[0] * 0.28
    legs = [[jointed((x - setback, y - low), breed.leg, (upper, upper - bend))
             for (x, y), (upper, bend) in (((rump_x + 0.04, rump_y), hind), ((chest_x + 0.02, chest_y), front))]
            for setback, hind, front in zip((0, 0.05), gait.hind, gait.front, strict=True)]
    neck_angle = math.radians(breed.neck[0] + gait.neck) + pitch * 0.6
    root = (chest_x - 0.03, chest_y + breed.girth[-1] * 0.08)
    top = (root[0] + breed.neck[1] * math.cos(neck_angle), root[1] + breed.neck[1] * math.sin(neck_angle))

    animal = Sketch()
    _legs(animal, kind, breed, legs[1], look, shade=0.26)
    _tail(animal, kind, breed, spine[0], pitch, look)
    if kind == "horse":
        _mane(animal, root, top, neck_angle, look)
    animal.limb(spine, breed.girth, look.main)
    _markings(animal, kind, spine, breed, look)
    _legs(animal, kind, breed, legs[0], look, shade=0)
    animal.limb([root, top], breed.neck[2:], look.main)
    animal.add(HEADS[kind](look), *top, 1, breed.tilt[gait.grazing] + gait.pitch * 0.4)

    lowest = min(leg[-1][1] for pair in legs for leg in pair) - breed.leg_width[2] * 0.4
    grounded = Sketch()
    grounded.add(animal, 0, gait.lift - lowest)
    return grounded


def _turned(point: Point, about: Point, angle: float) -> Point:
    u, v = point[0] - about[0], point[1] - about[1]
    return about[0] + u * math.cos(angle) - v * math.sin(angle), about[1] + u * math.sin(angle) + v * math.cos(angle)


def _legs(animal: Sketch, kind: str, breed: Breed, legs: list[list[Point]], look: Coat, shade: float) -> None:
    """A hind and a front leg, with hooves or paler paws."""
    for leg in legs:
        animal.limb(leg, breed.leg_width, darker(look.main, shade))
        (x0, y0), (x1, y1) = leg[1:]
        animal.limb([(x1 + (x0 - x1) * 0.14, y1 + (y0 - y1) * 0.14), (x1 + 0.012, y1)], [breed.leg_width[2]] * 2,
                    darker(look.dark if kind in HOOFED else look.pale, shade))


def _tail(animal: Sketch, kind: str, breed: Breed, rump: Point, pitch: float, look: Coat) -> None:
    root = (rump[0] - breed.girth[0] * 0.32, rump[1] + breed.girth[0] * 0.12)
    course = [_turned((root[0] + x, root[1] + y), root, pitch * 0.5) for x, y in breed.tail]
    animal.limb(course, breed.tail_width, look.dark if kind == "horse" else look.main)
    if kind == "cow":
        animal.disc(*course[-1], 0.05, look.dark)


def _mane(animal: Sketch, root: Point, top: Point, angle: float, look: Coat) -> None:
    x, y = -0.075 * math.sin(angle), 0.075 * math.cos(angle)
    animal.limb([(root[0] + x * 1.5, root[1] + y * 1.5), (top[0] + x, top[1] + y)], [0.13, 0.1], look.dark)


def _markings(animal: Sketch, kind: str, spine: list[Point], breed: Breed, look: Coat) -> None:
    rng = random.Random(look.seed)
    if kind == "cow":
        patch = look.dark if look.main == look.pale and sum(look.main) > 380 else (244, 238, 230)
        for (x, y), size in zip(spine, (0.13, 0.15), strict=False):
            if rng.random() < 0.9:
                animal.blob([(x - size, y + 0.02), (x - size * 0.2, y + size * 0.9), (x + size, y + size * 0.5),
                             (x + size * 0.6, y - size * 0.6), (x - size * 0.5, y - size * 0.7)], patch)
        animal.oval(spine[0][0] + 0.16, spine[0][1] - 0.2, 0.08, 0.06, PINK)
    elif kind == "cat" and rng.random() < 0.6:
        for i in range(3):
            x, y = spine[1][0] + (i - 1.3) * 0.11, spine[1][1] + breed.girth[1] * 0.42
            animal.line([(x, y), (x + 0.015, y - 0.1)], 0.03, look.dark)


# --- Heads, the skull at the origin, looking right -------------------------------------------------------------------


def _eye(head: Sketch, x: float, y: float, size: float = 0.022, closed: bool = False) -> None:
    if closed:
        head.line([(x - 0.035, y), (x, y - 0.016), (x + 0.035, y)], 0.016, DARK)
    else:
        head.disc(x, y, size * 1.25, (250, 246, 236))
        head.disc(x + size * 0.2, y, size, DARK)


def _dog_head(look: Coat, closed: bool = False) -> Sketch:
    head = Sketch()
    head.oval(0.02, 0.03, 0.15, 0.135, look.main)
    head.limb([(0.08, 0.0), (0.22, -0.035)], [0.17, 0.11], look.pale)
    head.oval(0.02, 0.06, 0.145, 0.105, look.main)
    head.oval(0.28, -0.005, 0.034, 0.028, NOSE)
    head.line([(0.25, -0.06), (0.17, -0.075)], 0.014, darker(look.pale, 0.4))
    _eye(head, 0.08, 0.07, closed=closed)
    head.blob([(-0.06, 0.15), (-0.01, 0.12), (0.0, -0.02), (-0.07, -0.12), (-0.14, -0.04), (-0.13, 0.1)], look.dark)
    return head


def _cat_head(look: Coat, closed: bool = False) -> Sketch:
    head = Sketch()
    for x in (-0.09, 0.09):
        head.polygon([(x - 0.075, 0.07), (x + 0.075, 0.07), (x * 1.22, 0.235)], look.main)
        head.polygon([(x - 0.035, 0.09), (x + 0.035, 0.09), (x * 1.17, 0.19)], PINK)
    head.oval(0.0, 0.02, 0.175, 0.145, look.main)
    head.oval(0.035, -0.045, 0.09, 0.062, look.pale if look.pale != look.main else lighter(look.main, 0.12))
    for x in (-0.05, 0.1):
        _eye(head, x, 0.04, 0.022, closed)
    head.polygon([(0.012, -0.012), (0.058, -0.012), (0.035, -0.036)], PINK)
    for y in (-0.03, -0.055):
        head.line([(0.09, y), (0.22, y - 0.012)], 0.008, (*DARK, 150))
        head.line([(-0.03, y), (-0.17, y - 0.012)], 0.008, (*DARK, 150))
    return head


def _horse_head(look: Coat, closed: bool = False) -> Sketch:
    head = Sketch()
    for x, color in ((-0.05, darker(look.main)), (-0.01, look.main)):
        head.polygon([(x - 0.03, 0.05), (x + 0.03, 0.05), (x - 0.025, 0.15)], color)
    head.limb([(-0.02, 0.0), (0.14, 0.0), (0.27, -0.005)], [0.17, 0.135, 0.105], look.main)
    head.limb([(0.26, -0.005), (0.285, -0.005)], [0.105, 0.09],
              look.pale if look.pale != look.main else mix(look.main, PINK, 0.35))
    head.disc(0.295, 0.012, 0.013, look.dark)
    _eye(head, 0.06, 0.035, 0.02)
    head.limb([(-0.08, 0.075), (0.0, 0.08), (0.07, 0.055)], [0.06, 0.06, 0.02], look.dark)
    return head


def _cow_head(look: Coat, closed: bool = False) -> Sketch:
    head = Sketch()
    head.limb([(-0.04, 0.1), (0.03, 0.19)], [0.045, 0.015], HORN)
    head.limb([(-0.04, 0.07), (-0.17, 0.06)], [0.05, 0.085], darker(look.main, 0.2))
    head.limb([(-0.02, 0.02), (0.2, 0.0)], [0.23, 0.18], look.main)
    head.limb([(0.19, 0.0), (0.235, -0.005)], [0.185, 0.16], PINK)
    head.disc(0.26, 0.03, 0.018, darker(PINK, 0.45))
    _eye(head, 0.05, 0.05, 0.024)
    return head


HEADS = {"dog": _dog_head, "cat": _cat_head, "horse": _horse_head, "cow": _cow_head}


# --- Sitting and sleeping: dogs and cats -----------------------------------------------------------------------------


SITTING_TAILS = {
    "dog": (((-0.24, 0.1), (-0.42, 0.1), (-0.52, 0.22)), (0.09, 0.075, 0.03)),
    "cat": (((-0.22, 0.08), (-0.44, 0.07), (-0.52, 0.2), (-0.44, 0.32)), (0.08, 0.08, 0.07, 0.05)),
}
SLEEPING_TAILS = {
    "dog": (((-0.5, 0.1), (-0.6, 0.05), (-0.36, 0.035)), (0.09, 0.08, 0.05)),
    "cat": (((-0.52, 0.12), (-0.62, 0.05), (-0.3, 0.04), (0.02, 0.04)), (0.09, 0.085, 0.085, 0.06)),
}


def _sitting(kind: str, look: Coat) -> Sketch:
    animal = Sketch()
    animal.limb(*SITTING_TAILS[kind], look.main)
    animal.limb([(0.08, 0.42), (0.13, 0.2), (0.14, 0.04)], [0.13, 0.1, 0.09], darker(look.main, 0.26))
    animal.blob([(-0.3, 0.02), (-0.32, 0.2), (-0.14, 0.46), (0.04, 0.66), (0.19, 0.62), (0.22, 0.44), (0.12, 0.2),
                 (0.08, 0.02)], look.main)
    animal.oval(0.13, 0.46, 0.07, 0.14, look.pale, 12)
    animal.limb([(0.12, 0.44), (0.17, 0.2), (0.17, 0.045)], [0.14, 0.1, 0.09], look.main)
    animal.limb([(0.17, 0.045), (0.21, 0.04)], [0.09, 0.08], look.pale)
    animal.oval(-0.15, 0.17, 0.15, 0.17, darker(look.main, 0.08))
    animal.limb([(-0.14, 0.05), (0.02, 0.045)], [0.1, 0.085], look.pale)
    animal.limb([(0.1, 0.6), (0.14, 0.74)], [0.24, 0.18], look.main)
    animal.add(HEADS[kind](look), 0.15, 0.8, 1.05)
    return animal


def _sleeping(kind: str, look: Coat) -> Sketch:
    animal = Sketch()
    animal.blob([(-0.52, 0.02), (-0.56, 0.2), (-0.36, 0.38), (-0.04, 0.38), (0.24, 0.28), (0.4, 0.12), (0.38, 0.02)],
                look.main)
    animal.oval(-0.3, 0.16, 0.2, 0.17, darker(look.main, 0.08))
    animal.limb([(-0.26, 0.05), (-0.06, 0.045)], [0.1, 0.085], look.pale)
    animal.limb([(0.16, 0.1), (0.44, 0.05)], [0.13, 0.09], darker(look.main, 0.08))
    animal.limb(*SLEEPING_TAILS[kind], darker(look.main, 0.12))
    animal.add(HEADS[kind](look, closed=True), 0.34, 0.18, 1.05, -8)
    return animal


RESTING = {"sit": _sitting, "sleep": _sleeping}
