"""The colours of a picture: a palette for each season, lit by the time of day and the weather.

Everything that is painted asks a Palette for its colours, so a second style needs only other tables here.
"""

import dataclasses
import functools

from ..world import Scene
from .sketch import Color

# What the colour words of a Scene mean. Softer than the pure ones, to sit well together.
PAINT = {
    "red": (214, 58, 50), "blue": (44, 104, 196), "green": (30, 132, 92), "yellow": (250, 200, 48),
    "orange": (240, 128, 40), "purple": (126, 76, 168), "pink": (244, 134, 168), "white": (250, 247, 240),
    "black": (44, 44, 54), "brown": (134, 84, 52), "gray": (142, 148, 158),
}


@dataclasses.dataclass(frozen=True)
class Season:
    """Colours of the land by day, from far to near."""

    sky: tuple[Color, Color, Color]  # zenith, middle, horizon
    far: Color
    mid: Color
    near: Color
    ground: tuple[Color, Color]  # at the horizon, at the lower edge
    leaves: tuple[Color, ...]
    flowers: tuple[Color, ...]


SEASONS = {
    "spring": Season(
        sky=((118, 186, 222), (186, 220, 228), (252, 238, 224)),
        far=(158, 190, 200), mid=(140, 190, 152), near=(158, 204, 122), ground=((182, 218, 126), (122, 182, 92)),
        leaves=((246, 184, 200), (236, 156, 184), (150, 200, 110)),
        flowers=((250, 250, 245), (250, 190, 205), (252, 220, 110))),
    "summer": Season(
        sky=((62, 152, 214), (136, 202, 232), (238, 242, 220)),
        far=(122, 170, 184), mid=(96, 158, 124), near=(118, 176, 94), ground=((150, 196, 96), (88, 152, 78)),
        leaves=((62, 132, 84), (84, 150, 80), (50, 116, 88)),
        flowers=((252, 220, 100), (250, 250, 240), (240, 110, 90))),
    "autumn": Season(
        sky=((120, 176, 204), (190, 210, 206), (254, 230, 186)),
        far=(166, 158, 178), mid=(196, 160, 116), near=(214, 168, 92), ground=((230, 190, 108), (190, 136, 74)),
        leaves=((226, 112, 48), (240, 164, 60), (200, 74, 50)),
        flowers=((226, 112, 48), (200, 74, 50), (246, 196, 90))),
    "winter": Season(
        sky=((124, 170, 212), (184, 208, 228), (244, 238, 236)),
        far=(164, 186, 212), mid=(192, 210, 228), near=(220, 230, 241), ground=((238, 243, 249), (204, 219, 236)),
        leaves=((84, 124, 124), (66, 104, 112), (104, 142, 140)),
        flowers=((255, 255, 255), (224, 236, 248), (255, 255, 255))),
}


@dataclasses.dataclass(frozen=True)
class Light:
    """How a time of day or a weather changes the colours it falls on."""

    land: Color = (255, 255, 255)  # the land is multiplied by this, 255 leaving it as it is
    figures: Color = (255, 255, 255)  # figures too, more gently: their colours must keep their names
    gray: float = 0  # how much of the land's colour is washed out, 0 to 1
    sky: tuple[Color, Color, Color] | None = None  # instead of the season's
    haze: float = 0.25  # how much of the horizon's colour lies over the far land
    shadow: tuple[float, float, int] = (0.5, 0.16, 70)  # shear sideways, length towards us, opacity


LIGHTS = {
    "day": Light(),
    "sunset": Light(
        land=(255, 196, 184), figures=(255, 232, 222), haze=0.4, shadow=(0.95, 0.24, 90),
        sky=((86, 74, 142), (232, 118, 112), (255, 208, 130))),
    "night": Light(
        land=(92, 116, 176), figures=(206, 210, 236), gray=0.2, haze=0.25, shadow=(0.4, 0.14, 80),
        sky=((14, 22, 62), (32, 52, 108), (92, 118, 172))),
    "cloudy": Light(
        land=(236, 238, 240), figures=(248, 248, 248), gray=0.25, haze=0.35, shadow=(0.1, 0.06, 50),
        sky=((146, 172, 194), (186, 202, 212), (226, 230, 228))),
    "rain": Light(
        land=(190, 204, 216), figures=(240, 242, 246), gray=0.36, haze=0.5, shadow=(0.0, 0.05, 45),
        sky=((96, 112, 134), (136, 150, 166), (186, 196, 202))),
    "snow": Light(
        land=(240, 244, 250), figures=(250, 250, 252), gray=0.3, haze=0.45, shadow=(0.1, 0.06, 45),
        sky=((150, 170, 196), (186, 200, 218), (224, 230, 238))),
}


class Palette:
    """The colours of one scene, already lit; `light_name` is the key of LIGHTS."""

    def __init__(self, scene: Scene) -> None:
        self.season_name, self.season = scene.season, SEASONS[scene.season]
        self.light_name = scene.time if scene.weather == "clear" or scene.time == "night" else scene.weather
        self.light = LIGHTS[self.light_name]
        self.sky = self.light.sky or self.season.sky
        haze = self.light.haze
        self.far = mix(self.land(self.season.far), self.sky[2], haze)
        self.mid = mix(self.land(self.season.mid), self.sky[2], haze / 2)
        self.near = self.land(self.season.near)
        self.ground = tuple(self.land(color) for color in self.season.ground)
        self.leaves = tuple(self.land(color) for color in self.season.leaves)
        self.flowers = tuple(self.land(color) for color in self.season.flowers)
        self.shadow = mix(self.ground[1], (24, 24, 70), 0.75)
        self.rim = mix(self.sky[2], (255, 250, 235), 0.5)

    def land(self, color: Color) -> Color:
        """A colour of the landscape in this light."""
        return _lit(color, self.light.land, self.light.gray)

    def figure(self, color: Color) -> Color:
        """A colour of a figure in this light."""
        return _lit(color, self.light.figures, 0)


@functools.lru_cache(maxsize=4096)
def _lit(color: Color, light: Color, gray: float) -> Color:
    mean = sum(color[:3]) / 3
    lit = tuple(round((c + (mean - c) * gray) * by / 255) for c, by in zip(color, light, strict=False))
    return lit + color[3:]


def mix(color: Color, other: Color, share: float) -> Color:
    """The colour with a share, 0 to 1, of the other in it."""
    return tuple(round(a + (b - a) * share) for a, b in zip(color, other, strict=False))


def darker(color: Color, by: float = 0.16) -> Color:
    """The colour as it is in the shade: towards a deep blue, not towards black."""
    return mix(color, (30, 26, 60), by)


def lighter(color: Color, by: float = 0.2) -> Color:
    """The colour as it is in full light."""
    return mix(color, (255, 250, 236), by)
