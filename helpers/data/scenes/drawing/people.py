"""Men, women, boys and girls, one unit high when they stand, facing right, the lowest foot at y = 0.

A pose is a table of joint angles, so every action is one line; the body finds its own height above the ground.
"""

import dataclasses
import math
import random

from .palette import Palette, darker, lighter
from .sketch import Color, Point, Sketch, jointed

SKINS = ((250, 208, 176), (236, 184, 146), (214, 154, 112), (166, 108, 76), (120, 78, 58))
HAIR = ((58, 42, 40), (96, 62, 44), (150, 92, 52), (212, 160, 84), (178, 80, 46), (40, 36, 44))
JEANS = ((58, 70, 104), (76, 74, 92), (104, 92, 86))
SHOES = (66, 54, 60)
EYES = (52, 42, 48)
BLUSH = (226, 104, 92)


@dataclasses.dataclass(frozen=True)
class Build:
    """Lengths and widths of a body in shares of its standing height."""

    head: float  # radius
    torso: float
    leg: float
    arm: float
    width: float  # of the torso at the shoulders
    limb: float  # width of the legs; arms are thinner
    hair: str  # "short", "long", "tousled" or "tails"
    skirt: float = 0  # length below the hip; 0 for trousers
    shorts: bool = False


ADULT = Build(head=0.088, torso=0.3, leg=0.47, arm=0.36, width=0.185, limb=0.092, hair="short")
CHILD = Build(head=0.128, torso=0.27, leg=0.37, arm=0.31, width=0.2, limb=0.1, hair="tousled", shorts=True)
BUILDS = {
    "man": ADULT,
    "woman": dataclasses.replace(ADULT, head=0.092, width=0.155, limb=0.078, hair="long", skirt=0.2),
    "boy": CHILD,
    "girl": dataclasses.replace(CHILD, width=0.17, limb=0.088, hair="tails", skirt=0.15, shorts=False),
}
SEATS = {"man": 0.2, "woman": 0.2, "boy": 0.15, "girl": 0.15}  # height of a bench that suits them


@dataclasses.dataclass(frozen=True)
class Pose:
    """Angles in degrees: limbs from hanging straight down, forward positive; (upper, bend of elbow or knee).

    Elbows bend forward, knees backward. The near limbs are on our side of the body.
    """

    lean: float = 0  # of the torso, forward
    near_arm: tuple[float, float] = (-8, 12)
    far_arm: tuple[float, float] = (10, 12)
    near_leg: tuple[float, float] = (-5, 0)
    far_leg: tuple[float, float] = (7, 2)
    lift: float = 0  # of the lowest foot above the ground


POSES = {
    "stand": Pose(),
    "walk": Pose(4, (-32, 14), (28, 22), (26, 4), (-22, 16)),
    "run": Pose(16, (-62, 78), (48, 86), (62, 48), (-34, 62)),
    "jump": Pose(4, (142, 14), (-150, -10), (42, 92), (-28, 70), lift=0.2),
    "sit": Pose(-4, (22, 38), (34, 44), (88, 86), (80, 78)),
    "bicycle": Pose(26, (58, 16), (62, 16), (62, 74), (28, 26)),
    "kite": Pose(-8, (112, 22), (88, 30), (22, 6), (-20, 6)),
    "ball": Pose(-10, (-52, 20), (62, 20), (64, 14), (-10, 8)),
    "balloon": Pose(0, (-14, 14), (84, 48), (16, 4), (-12, 8)),
    "umbrella": Pose(2, (34, 104), (-22, 16), (20, 4), (-18, 12)),
    "sled": Pose(-14, (52, 24), (58, 24), (96, 26), (84, 18)),
    "ski": Pose(30, (28, 62), (40, 60), (52, 66), (40, 62)),
    "dog": Pose(3, (38, 26), (-24, 16), (24, 4), (-22, 14)),
}


def person(kind: str, action: str, color: Color, palette: Palette, rng: random.Random) -> Sketch:
    """A person in clothes of a colour; anchors "hip", "hand", "far hand", "foot" and "far foot"."""
    build, pose = BUILDS[kind], POSES[action]
    winter = palette.season_name == "winter"
    look = Look(palette.figure(rng.choice(SKINS)), palette.figure(rng.choice(HAIR)), palette.figure(color),
                palette.figure(rng.choice(JEANS)), winter)
    body = Sketch()
    lean = math.radians(pose.lean)
    hip = (0.0, 0.0)
    shoulder = (build.torso * math.sin(lean), build.torso * math.cos(lean))
    head = (shoulder[0] + build.head * (1.2 * math.sin(lean) + 0.1), shoulder[1] + build.head * 1.12)
    arms_at = (shoulder[0] * 0.92, shoulder[1] * 0.92)
    near_leg, far_leg = (jointed(hip, build.leg, (upper, upper - bend))
                         for upper, bend in (pose.near_leg, pose.far_leg))
    near_arm, far_arm = (jointed(arms_at, build.arm, (upper, upper + bend))
                         for upper, bend in (pose.near_arm, pose.far_arm))

    _arm(body, build, far_arm, look, shade=0.2)
    _hair_behind(body, build, head, look)
    _leg(body, build, far_leg, look, shade=0.2)
    _leg(body, build, near_leg, look, shade=0)
    _clothes(body, build, shoulder, near_leg, far_leg, look)
    _head(body, build, shoulder, head, look)
    _arm(body, build, near_arm, look, shade=0.07)

    body.anchors = {"hip": hip, "hand": near_arm[-1], "far hand": far_arm[-1],
                    "foot": near_leg[-1], "far foot": far_leg[-1]}
    standing = Sketch()
    standing.add(body, 0, pose.lift - min(near_leg[-1][1], far_leg[-1][1]) + build.limb * 0.35)
    return standing


@dataclasses.dataclass(frozen=True)
class Look:
    """The colours of one person, lit."""

    skin: Color
    hair: Color
    clothes: Color
    trousers: Color
    winter: bool


def _arm(body: Sketch, build: Build, joints: list[Point], look: Look, shade: float) -> None:
    width = build.limb * 0.72
    middle, hand = joints[1], joints[2]
    body.limb(joints, [width, width * 0.9, width * 0.72], darker(look.skin, shade))
    body.disc(*hand, width * 0.46, darker(look.skin, shade))
    sleeve = 0.75 if look.winter or build.hair in ("short", "long") else 0.1
    cuff = (middle[0] + (hand[0] - middle[0]) * sleeve, middle[1] + (hand[1] - middle[1]) * sleeve)
    body.limb([joints[0], middle, cuff], [width * 1.22, width * 1.12, width], darker(look.clothes, shade + 0.06))


def _leg(body: Sketch, build: Build, joints: list[Point], look: Look, shade: float) -> None:
    hip, knee, foot = joints
    bare_legs = build.shorts or build.skirt
    color = look.trousers if look.winter or not bare_legs else look.skin
    width = build.limb
    body.limb(joints, [width * 1.15, width, width * 0.68], darker(color, shade))
    if build.shorts:
        hem = (hip[0] + (knee[0] - hip[0]) * 0.85, hip[1] + (knee[1] - hip[1]) * 0.85)
        body.limb([hip, hem], [width * 1.35, width * 1.4], darker(look.trousers, shade))
    along = math.atan2(foot[1] - knee[1], foot[0] - knee[0]) + math.pi / 2  # the sole is square to the shin
    toe = (foot[0] + build.limb * 0.8 * math.cos(along), foot[1] + build.limb * 0.8 * math.sin(along))
    body.limb([foot, toe], [width * 0.72, width * 0.56], darker(SHOES, shade))


def _clothes(body: Sketch, build: Build, shoulder: Point, near_leg: list[Point], far_leg: list[Point],
             look: Look) -> None:
    """A shirt down to the hip, or a dress whose hem follows the thighs."""
    half, (x, y) = build.width / 2, shoulder
    waist = (x * 0.45, y * 0.42)
    color, shade = look.clothes, darker(look.clothes, 0.14)
    if not build.skirt:
        body.blob([(x - half * 0.75, y), (x + half * 0.75, y), (x + half, y * 0.8), (waist[0] + half * 0.9, waist[1]),
                   (half * 0.85, -0.03), (-half * 0.85, -0.03), (waist[0] - half * 0.9,
                                                                 waist[1]), (x - half, y * 0.8)], color)
    else:
        knees = sorted((_along(leg, build.skirt) for leg in (near_leg, far_leg)), key=lambda point: point[0])
        (left, left_y), (right, right_y) = knees
        spread = build.width * 0.62
        hem_left, hem_right = (min(left, -0.02) - spread * 0.75, left_y), (max(right, 0.02) + spread * 0.75, right_y)
        body.polygon([(x - half * 0.7, y), (x + half * 0.7, y), (x + half * 0.9, y * 0.82),
                      (waist[0] + half * 0.72, waist[1]),
                      hem_right, ((hem_left[0] + hem_right[0]) / 2, (hem_left[1] + hem_right[1]) / 2 - 0.02), hem_left,
                      (waist[0] - half * 0.72, waist[1]), (x - half * 0.9, y * 0.82)], color)
        body.limb([(waist[0] - half * 0.62, waist[1]), (waist[0] + half * 0.62, waist[1])], [0.03, 0.03], shade)
        body.oval(x, y * 0.93, half * 0.85, 0.05, color)


def _along(leg: list[Point], length: float) -> Point:
    """The point at a distance from the hip along a leg."""
    (x0, y0), (x1, y1), (x2, y2) = leg
    half = math.hypot(x1 - x0, y1 - y0)
    if length <= half:
        return x0 + (x1 - x0) * length / half, y0 + (y1 - y0) * length / half
    share = (length - half) / half
    return x1 + (x2 - x1) * share, y1 + (y2 - y1) * share


def _hair_behind(body: Sketch, build: Build, head: Point, look: Look) -> None:
    """Long hair falls behind the shoulders."""
    if build.hair == "long":
        hair = Sketch()
        hair.blob([(-0.4, 0.9), (0.3, 0.4), (0.1, -1.3), (-0.9, -2.1), (-1.5, -1.5), (-1.2, 0)], look.hair)
        body.add(hair, *head, build.head)


def _head(body: Sketch, build: Build, shoulder: Point, head: Point, look: Look) -> None:
    """Neck, face and hair; the face is sketched in units of its radius."""
    (x, y), r = head, build.head
    body.limb([(shoulder[0], shoulder[1] - r * 0.3), (x - r * 0.1, y - r * 0.4)], [r * 0.72, r * 0.66],
              darker(look.skin, 0.12))
    face = Sketch()
    face.oval(0, 0, 0.94, 1, look.skin)
    face.disc(0.92, -0.1, 0.16, look.skin)  # the nose
    face.disc(0.45, -0.34, 0.24, (*BLUSH, 110))
    for dx in (0.22, 0.66):
        face.oval(dx, 0.06, 0.1, 0.15, EYES)
    HAIRCUTS[build.hair](face, look)
    if look.winter:
        _hat(face, build, look)
    body.add(face, x, y, r)
    if look.winter:
        _scarf(body, shoulder, r, look)


def _short_hair(face: Sketch, look: Look) -> None:
    face.blob([(0.72, 0.5), (0.62, 0.98), (-0.1, 1.2), (-0.88, 0.8), (-1.04, 0), (-0.72, -0.42), (-0.5, 0.2),
               (-0.2, 0.52)], look.hair)


def _long_hair(face: Sketch, look: Look) -> None:
    face.blob([(0.78, 0.5), (0.5, 1.04), (-0.2, 1.2), (-0.95, 0.75), (-1.15, -0.3), (-0.8, -1.1), (-0.5, -0.3),
               (-0.1, 0.5)], look.hair)


def _tousled_hair(face: Sketch, look: Look) -> None:
    face.polygon([(0.82, 0.34), (0.95, 0.78), (0.6, 0.86), (0.5, 1.2), (0.1, 1.08), (-0.2, 1.3), (-0.5, 1.02),
                  (-0.95, 0.9), (-0.95, 0.45), (-1.12, 0.1), (-0.8, -0.35), (-0.55, 0.25), (-0.2, 0.42), (0.3, 0.44)],
                 look.hair)


def _hair_in_tails(face: Sketch, look: Look) -> None:
    face.blob([(0.86, 0.3), (0.62, 0.95), (-0.1, 1.16), (-0.9, 0.72), (-1.04, -0.1), (-0.6, -0.1), (-0.2, 0.46)],
              look.hair)
    face.blob([(-0.9, 0.3), (-1.5, 0.62), (-2.0, -0.1), (-1.75, -0.85), (-1.4, -0.2)], look.hair)
    face.disc(-1.02, 0.3, 0.2, lighter(look.clothes, 0.25))


HAIRCUTS = {"short": _short_hair, "long": _long_hair, "tousled": _tousled_hair, "tails": _hair_in_tails}


def _hat(face: Sketch, build: Build, look: Look) -> None:
    """A woollen hat, for children with a pompom."""
    wool = lighter(look.clothes, 0.35)
    face.blob([(0.95, 0.35), (0.8, 1.0), (0, 1.4), (-0.85, 1.0), (-1.05, 0.35), (0, 0.5)], look.clothes)
    face.limb([(-0.95, 0.4), (0, 0.52), (0.88, 0.4)], [0.34] * 3, wool)
    if build.hair in ("tousled", "tails"):
        face.disc(-0.05, 1.5, 0.34, wool)


def _scarf(body: Sketch, shoulder: Point, r: float, look: Look) -> None:
    (x, y), wool = shoulder, lighter(look.clothes, 0.35)
    body.limb([(x - r * 0.75, y), (x + r * 0.75, y)], [r * 0.55] * 2, wool)
    body.limb([(x - r * 0.5, y), (x - r * 0.75, y - r * 1.2)], [r * 0.5, r * 0.45], darker(wool, 0.1))
