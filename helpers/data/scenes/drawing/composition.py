"""Who stands where: the subjects and the landmark, placed in the picture.

Coordinates are in pictures: x from 0 to 1, y from 0 at the lower edge to 1 at the top.
"""

import dataclasses
import random

from ..world import SUBJECTS, Scene
from . import landmarks, people, props
from .palette import Palette
from .sketch import Sketch
from .subjects import subject
from .underfoot import BRANCH


@dataclasses.dataclass
class Placed:
    """A sketch in picture coordinates and the height of the ground that its shadow falls on (None: no shadow)."""

    sketch: Sketch
    ground: float | None
    is_subject: bool = True


# How large one unit of a subject's sketch is, in pictures.
SCALES = {
    "man": 0.52, "woman": 0.5, "boy": 0.46, "girl": 0.46, "dog": 0.46, "cat": 0.5, "horse": 0.5, "cow": 0.52,
    "rabbit": 0.46, "bird": 0.42, "duck": 0.46, "car": 0.72, "bus": 0.68, "train": 0.5, "sailboat": 0.62,
    "hot air balloon": 0.56,
}
SIZE_SCALES = {"small": 0.62, "": 1, "big": 1.25}
COUNT_SCALES = {1: 1, 2: 0.82, 3: 0.7}
SPACING = {1: 0, 2: 0.38, 3: 0.28}  # between neighbours, at least
OVERLAP = {1: 0, 2: 0.04, 3: 0.22}  # of neighbours, in shares of their width
SET_BACK = {1: (0,), 2: (0.02, 0), 3: (0.01, 0.05, 0)}  # of each in a row, so that three need less room
MARGIN = 0.03
GROUND = 0.13
BENCH_LENGTHS = {1: 0.95, 2: 1.5}  # by the number of people on it, in their heights


def compose(scene: Scene, palette: Palette, rng: random.Random) -> list[Placed]:
    """Landmark and subjects, the farthest first."""
    count = scene.count
    sketches = [subject(scene, palette, rng) for _ in range(count)]
    bounds = [sketch.bounds() for sketch in sketches]
    width, height = max(right - left for left, _, right, _ in bounds), max(top for _, _, _, top in bounds)
    base, has_shadow = _base(scene, rng)
    scale = SCALES[scene.subject] * COUNT_SCALES[count] * SIZE_SCALES[scene.size]
    if scene.subject != "train":  # which may leave the picture, all others fit into it
        room = (1 - 2 * MARGIN) / (1 + (count - 1) * (1 - OVERLAP[count]))
        scale = min(scale, room / width, (1 - MARGIN - base - max(SET_BACK[count])) / height)

    on_bench = scene.subject in people.SEATS and scene.action == "sit"
    set_back = (0,) * count if on_bench else SET_BACK[count]
    spacing = scale * 0.55 if on_bench else max(SPACING[count], width * scale * (1 - OVERLAP[count]))
    center = _center(scene, width * scale + spacing * (count - 1), rng)
    placed = [_landmark(scene, palette, rng)] if scene.landmark else []
    if on_bench:
        bench = Sketch()
        bench.add(props.bench(palette, BENCH_LENGTHS[count], people.SEATS[scene.subject]), center, base, scale)
        placed.append(Placed(bench, base))
    row = []
    for i, (sketch, (left, _, right, _)) in enumerate(zip(sketches, bounds, strict=True)):
        x = center + (i - (count - 1) / 2) * spacing - (left + right) / 2 * scale
        whole = Sketch()
        whole.add(sketch, x, base + set_back[i], scale)
        row.append(Placed(whole, base + set_back[i] if has_shadow else None))
    return placed + sorted(row, key=lambda one: one.ground or 0, reverse=True)


def _center(scene: Scene, width: float, rng: random.Random) -> float:
    """The middle of the subjects, which together have a width."""
    if scene.subject == "train":
        return 0.5
    wanted = 0.34 if scene.relation in ("next to", "above") else 0.5 + rng.uniform(-0.06, 0.06)
    return min(max(wanted, MARGIN + width / 2), 1 - MARGIN - width / 2)


def _base(scene: Scene, rng: random.Random) -> tuple[float, bool]:
    """Where a subject's sketch has its y = 0, and whether it casts a shadow there."""
    if scene.subject == "hot air balloon":
        return {"small": 0.5, "": 0.38, "big": 0.24}[scene.size] + rng.uniform(-0.03, 0.03), False
    if scene.action == "fly":
        return 0.46 + rng.uniform(-0.03, 0.05), False
    if scene.action == "perch":
        return BRANCH + 0.02, False
    if scene.action in ("swim", "sail"):
        return 0.17, False
    if SUBJECTS[scene.subject].group == "vehicle":
        return 0.1, True
    return GROUND, True


def _landmark(scene: Scene, palette: Palette, rng: random.Random) -> Placed:
    sketch, height = landmarks.LANDMARKS[scene.landmark]
    person = SUBJECTS[scene.subject].group == "person"
    x, y = {"next to": (0.8, 0.17), "under": (0.56, 0.17), "in front of": (0.6 if person else 0.72, 0.26),
            "above": (0.76, 0.25)}[scene.relation]
    if scene.landmark in ("house", "windmill", "lighthouse"):
        y = 0.26
    whole = Sketch()
    whole.add(sketch(palette, rng), x + rng.uniform(-0.02, 0.02), y,
              height * {"under": 1.3, "above": 0.7}.get(scene.relation, 1))
    return Placed(whole, y, is_subject=False)
