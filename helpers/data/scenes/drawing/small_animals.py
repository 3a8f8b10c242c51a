"""Rabbits, birds and ducks: about one unit high, facing right, standing, floating or flying at y = 0."""

from .animals import DARK, PINK, Coat
from .palette import darker, lighter, mix
from .sketch import Sketch

BEAK = (246, 168, 52)


def rabbit(action: str, look: Coat) -> Sketch:
    """A rabbit, sitting up or in the middle of a hop."""
    if action == "jump":
        leaping = Sketch()
        leaping.limb([(-0.26, 0.12), (-0.5, 0.0)], [0.16, 0.09], darker(look.main, 0.2))
        leaping.limb([(0.26, 0.16), (0.46, 0.06)], [0.1, 0.08], darker(look.main, 0.2))
        leaping.disc(-0.42, 0.28, 0.1, (250, 248, 244))
        leaping.limb([(-0.26, 0.22), (0.0, 0.27), (0.26, 0.26)], [0.36, 0.36, 0.26], look.main)
        leaping.oval(-0.22, 0.18, 0.19, 0.17, darker(look.main, 0.08))
        leaping.limb([(-0.26, 0.08), (-0.46, -0.06), (-0.56, -0.06)], [0.14, 0.1, 0.08], look.main)
        leaping.limb([(0.22, 0.14), (0.42, 0.02)], [0.11, 0.09], look.main)
        leaping.add(_rabbit_head(look, lean=40), 0.38, 0.4, 1.0)
        hop = Sketch()
        hop.add(leaping, 0, 0.34, 1.0, 14)
        return hop
    sitting = Sketch()
    sitting.disc(-0.36, 0.16, 0.11, (250, 248, 244))
    sitting.blob([(-0.32, 0.0), (-0.36, 0.24), (-0.16, 0.46), (0.1, 0.52), (0.24, 0.4), (0.24, 0.16), (0.14, 0.0)],
                 look.main)
    sitting.oval(0.15, 0.3, 0.09, 0.15, look.pale if look.pale != look.main else lighter(look.main, 0.1))
    sitting.oval(-0.12, 0.18, 0.2, 0.19, darker(look.main, 0.08))
    sitting.limb([(-0.14, 0.05), (0.08, 0.045)], [0.11, 0.09], look.main)
    sitting.limb([(0.16, 0.26), (0.2, 0.05), (0.24, 0.045)], [0.1, 0.09, 0.08], look.main)
    sitting.add(_rabbit_head(look, lean=10), 0.2, 0.58, 1.0)
    return sitting


def _rabbit_head(look: Coat, lean: float) -> Sketch:
    head = Sketch()
    ear = Sketch()
    ear.oval(0, 0.2, 0.065, 0.22, look.main)
    ear.oval(0.005, 0.19, 0.032, 0.17, PINK)
    head.add(ear, -0.08, 0.08, 0.95, lean + 18)
    head.add(ear, -0.01, 0.1, 1, lean)
    head.oval(0.03, 0.0, 0.19, 0.165, look.main)
    head.oval(0.12, -0.05, 0.1, 0.075, lighter(look.main, 0.3))
    head.disc(0.08, 0.045, 0.032, DARK)
    head.disc(0.09, 0.055, 0.011, (255, 255, 255))
    head.oval(0.205, -0.01, 0.022, 0.017, (226, 120, 120))
    return head


def bird(action: str, look: Coat) -> Sketch:
    """A songbird, perched or flying with spread wings."""
    animal = Sketch()
    breast = mix(look.main, (255, 244, 220), 0.55)
    if action == "fly":
        animal.blob([(0.02, 0.12), (0.14, 0.36), (0.02, 0.72), (-0.12, 0.86), (-0.2, 0.5), (-0.14, 0.16)],
                    darker(look.main, 0.28))
        animal.polygon([(-0.3, 0.1), (-0.78, 0.14), (-0.7, 0.02), (-0.76, -0.08), (-0.3, -0.04)],
                       darker(look.main, 0.16))
        animal.limb([(-0.36, 0.03), (-0.02, 0.02), (0.28, 0.1)], [0.16, 0.3, 0.24], look.main)
        animal.oval(0.08, -0.04, 0.22, 0.09, breast, 14)
        animal.disc(0.38, 0.16, 0.14, look.main)
        animal.blob([(0.1, 0.08), (0.08, 0.3), (-0.16, 0.62), (-0.5, 0.84), (-0.48, 0.62), (-0.4, 0.4), (-0.26, 0.1)],
                    darker(look.main, 0.1))
        for x, y in ((-0.42, 0.62), (-0.34, 0.44)):
            animal.line([(x, y), (-0.06, 0.2)], 0.02, darker(look.main, 0.3))
        eye, beak = (0.43, 0.2), (0.49, 0.15)
    else:
        for x in (-0.02, 0.08):
            animal.line([(x, 0.0), (x + 0.01, 0.22)], 0.03, darker(BEAK, 0.3))
            animal.line([(x - 0.05, 0.015), (x + 0.07, 0.015)], 0.03, darker(BEAK, 0.3))
        animal.polygon([(-0.28, 0.42), (-0.66, 0.2), (-0.6, 0.1), (-0.5, 0.1), (-0.2, 0.28)], darker(look.main, 0.22))
        animal.blob([(-0.34, 0.4), (-0.12, 0.2), (0.14, 0.18), (0.32, 0.36), (0.34, 0.62), (0.14, 0.72), (-0.08, 0.6)],
                    look.main)
        animal.blob([(0.02, 0.2), (0.2, 0.2), (0.33, 0.4), (0.28, 0.56), (0.16, 0.42)], breast)
        animal.disc(0.2, 0.74, 0.2, look.main)
        animal.blob([(0.08, 0.56), (-0.14, 0.56), (-0.46, 0.28), (-0.2, 0.26), (0.06, 0.36)], darker(look.main, 0.14))
        eye, beak = (0.27, 0.79), (0.37, 0.74)
    animal.polygon([(beak[0] - 0.02, beak[1] + 0.065), (beak[0] + 0.16, beak[1]), (beak[0] - 0.02, beak[1] - 0.055)],
                   BEAK)
    animal.disc(*eye, 0.042, (250, 248, 240))
    animal.disc(eye[0] + 0.01, eye[1], 0.03, DARK)
    return animal


def duck(action: str, look: Coat) -> Sketch:
    """A duck, on its feet or sitting on the water."""
    animal = Sketch()
    base = 0.0
    if action != "swim":
        base = 0.16
        for x, tip in ((-0.08, 0.06), (0.12, 0.26)):
            animal.line([(x, 0.22), (x, 0.03)], 0.045, darker(BEAK, 0.12))
            animal.polygon([(x - 0.05, 0.0), (tip, 0.0), (x + 0.02, 0.06)], darker(BEAK, 0.08))
    animal.blob([(-0.56, base + 0.4), (-0.4, base + 0.1), (-0.1, base - 0.03), (0.24, base), (0.4, base + 0.2),
                 (0.3, base + 0.4),
                 (0.0, base + 0.36), (-0.3, base + 0.34)], look.main)
    animal.limb([(0.22, base + 0.24), (0.3, base + 0.44), (0.3, base + 0.58)], [0.28, 0.2, 0.2], look.main)
    animal.disc(0.32, base + 0.62, 0.16, look.main)
    animal.blob([(0.14, base + 0.3), (-0.1, base + 0.34), (-0.4, base + 0.34), (-0.26, base + 0.14),
                 (0.02, base + 0.12)], darker(look.main, 0.14))
    animal.limb([(0.46, base + 0.59), (0.6, base + 0.56)], [0.09, 0.07], BEAK)
    animal.disc(0.37, base + 0.67, 0.032, DARK)
    if action == "swim":
        water = Sketch()
        water.add(animal, 0, -0.06)
        for x, width, y in ((0, 1.1, 0.0), (-0.1, 1.5, -0.07)):
            water.line([(x - width / 2, y), (x + width / 2, y)], 0.03, (240, 250, 255, 170))
        return water
    return animal


SMALL_ANIMALS = {"rabbit": rabbit, "bird": bird, "duck": duck}
