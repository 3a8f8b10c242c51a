"""The first cell on a simulated Kaggle and Colab: their variables and mounts, their pins, and no package beyond them.

The cell runs in a Python of its own (-S: nothing of this machine's site-packages), beside stand-ins for torch, pip, git and
google.colab that write down what they are asked.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.environment import ROOT
from helpers.first_cell import find_notebooks, find_tag
from helpers.hosted import GPU, INTERNET, KEPT, PACKAGES
from helpers.kaggle_folders import TITLE, pack_helpers, slugify

CELL = (ROOT / "helpers" / "bootstrap.py").read_text(encoding="utf-8")
PUBLISHED = CELL.replace('REPOSITORY = ""', 'REPOSITORY = "ann/captions"')
PINS = {"torch": "2.11.0+cu128", "torchvision": "0.26.0+cu128", "transformers": "5.15.0", "numpy": "2.0.2"}
VERSION = "v" + tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

# Looks at the network as the machine would, and is the kernel of a notebook: Colab's has imported google.colab.
KERNEL = """
import os, sys, types, urllib.request
def urlopen(request, **options):
    if "SIM_OFFLINE" in os.environ:
        raise OSError("Temporary failure in name resolution")
    return types.SimpleNamespace(close=lambda: None)
urllib.request.urlopen = urlopen
if os.environ["SIM_PLACE"] == "colab":
    import google.colab
exec(compile(open(sys.argv[1]).read(), "cell", "exec"))
import helpers
print("found", os.path.dirname(os.path.dirname(helpers.__file__)))
"""
PIP = """
import json, os, sys
with open(sys.argv[sys.argv.index("-c") + 1]) as pins, open(os.environ["SIM_LOG"], "a") as log:
    log.write(json.dumps({"pip": sys.argv[1:], "pins": pins.read().split()}) + "\\n")
sys.exit(any(word in " ".join(sys.argv) for word in os.environ.get("SIM_PIP_FAILS", "").split()))
"""
GIT = """#!/bin/sh
printf '{"git": "%s"}\\n' "$*" >> "$SIM_LOG"
for last; do :; done
if [ -n "$SIM_OFFLINE" ]; then
  echo "fatal: unable to access 'https://github.com/ann/captions/': Could not resolve host: github.com" >&2; exit 128
fi
mkdir "$last" && ln -s "$SIM_PROJECT/helpers" "$last/helpers"
"""


class Machine:
    """A simulated host below `folder`: what lies under /kaggle/input lies under `mount` instead."""

    def __init__(self, folder: Path):
        self.mount, self.work, self.temporary = (folder / name for name in ("input", "work", "temporary"))
        self.site, self.programs, self.log = folder / "site", folder / "programs", folder / "log"
        for place in (self.mount, self.work, self.temporary, self.site / "pip", self.site / "google" / "colab", self.programs):
            place.mkdir(parents=True)
        self.log.touch()
        (self.site / "torch.py").write_text("import os\nclass cuda:\n    is_available = lambda: 'SIM_GPU' in os.environ\n")
        (self.site / "pip" / "__init__.py").touch()  # a package, or the real pip would come first
        (self.site / "pip" / "__main__.py").write_text(PIP)
        (self.programs / "git").write_text(GIT)
        (self.programs / "git").chmod(0o755)
        for name, version in PINS.items():
            info = self.site / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "kernel.py").write_text(KERNEL)

    def has(self, *modules: str) -> None:
        for module in modules:
            (self.site / f"{module}.py").touch()

    def attach(self, project: Path, layout: str) -> Path:
        """A dataset's mount. Nothing may be written there: a superuser could all the same, so `listing` is compared too."""
        place = shutil.copytree(project, self.mount / layout)
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        return place

    def listing(self, folder: Path) -> list[Path]:
        return sorted(folder.rglob("*"))

    def run(self, cell: str, place: str, **variables: str) -> subprocess.CompletedProcess:
        kernel = self.site.parent / "kernel.py"
        source = kernel.with_name("cell.py")
        assert cell.count('"/kaggle/input"') == 1
        if place == "local":
            shutil.rmtree(self.site / "google")
        source.write_text(cell.replace("/kaggle/input", self.mount.as_posix()), encoding="utf-8")
        environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin", "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.temporary), "HOME": "/home/secretname", "KAGGLE_KEY": "secrettoken", "HF_TOKEN": "secrettoken",
            "SIM_LOG": str(self.log), "SIM_PLACE": place, "SIM_PROJECT": str(ROOT), **variables,
            "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1",  # should the real one ever answer
            **({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"} if place == "kaggle" else {}),
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-S", kernel, source], cwd=self.work, env=environment, capture_output=True,
                              text=True)  # fmt: skip
        assert "secret" not in done.stdout + done.stderr
        return done

    def asked(self, of: str) -> list:
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [entry for entry in entries if of in entry]


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    for path in (tmp_path, *tmp_path.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


@pytest.fixture
def full(machine):
    """An image that lacks nothing, with a GPU."""
    machine.has(*PACKAGES, "clip")
    return machine


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The helpers as `helpers.publish kaggle` packs them: what Kaggle mounts."""
    folder = tmp_path_factory.mktemp("dataset")
    pack_helpers("ann", folder)
    return folder


def test_the_cell_is_short_and_knows_its_tag():
    lines = CELL.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 127
    assert find_tag() == VERSION, "pyproject.toml has another version"
    assert "Settings > Turn on internet" in CELL and "Settings > Turn on internet" in INTERNET["kaggle"], "the same click"


@pytest.mark.parametrize("path", find_notebooks(ROOT), ids=lambda path: path.stem)
def test_every_notebook_begins_with_this_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert first + "\n" == CELL, "python -m helpers.publish cells"


def test_locally_it_finds_the_project_and_does_nothing_else(machine):
    """Not even torch is imported, and nothing is installed that is missing."""
    (machine.site / "torch.py").write_text("raise RuntimeError")
    machine.work = ROOT / "notebooks"
    done = machine.run(PUBLISHED, "local", SIM_OFFLINE="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"found {ROOT}\n", "") and not machine.log.read_text()


def test_locally_nothing_is_fetched(machine):
    done = machine.run(PUBLISHED, "local")
    assert done.returncode == 1 and "Elsewhere: open this notebook inside the project." in done.stderr
    assert not machine.log.read_text()


@pytest.mark.parametrize("layout", [slugify(TITLE), f"datasets/ann/{slugify(TITLE)}", "any-name/captions-main",
                                    "datasets/ann/any-name/captions-main"])
def test_an_attached_dataset_is_found_in_both_layouts(full, dataset, layout):
    """And a copy from GitHub is not fetched then. With a GPU and nothing to say it is silent."""
    (full.mount / "flickr8k" / "Images").mkdir(parents=True)
    attached = full.attach(dataset, layout)
    before = full.listing(attached)
    for cell in (CELL, PUBLISHED):
        done = full.run(cell, "kaggle", SIM_GPU="1")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"found {attached}\n", "")
    assert full.listing(attached) == before and not full.listing(full.work) and not full.log.read_text()


@pytest.mark.parametrize("place", ["kaggle", "colab"])
def test_a_published_project_is_cloned_at_its_tag(full, place):
    """Once: the second run finds it. On Kaggle not into the working folder, which becomes the notebook's output."""
    home = full.temporary if place == "kaggle" else full.work
    for _ in range(2):
        done = full.run(PUBLISHED, place, SIM_GPU="1")
        assert (done.returncode, done.stderr) == (0, "") and done.stdout == f"found {home / f'captioning-{VERSION}'}\n"
    (asked,) = full.asked("git")
    assert asked["git"] == (f"clone --quiet --depth=1 --branch={VERSION} https://github.com/ann/captions "
                            f"{home / f'captioning-{VERSION}'}")  # fmt: skip
    assert full.listing(full.work) == ([] if place == "kaggle" else full.listing(home))


@pytest.mark.parametrize("place", ["kaggle", "colab"])
def test_without_a_project_it_says_what_to_do(full, place):
    done = full.run(CELL, place)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not full.log.read_text()
    for way in ("Add Input (on the right) > Datasets", "!unzip -q NAME.zip", "write OWNER/REPO into REPOSITORY above"):
        assert way in done.stderr


def test_without_internet_the_clone_names_the_click(full):
    done = full.run(PUBLISHED, "kaggle", SIM_OFFLINE="1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Could not resolve host" in done.stderr and "Settings > Turn on internet" in done.stderr


@pytest.mark.parametrize("place", ["kaggle", "colab"])
def test_what_the_image_lacks_is_installed_and_torch_stays(machine, dataset, place):
    machine.has("lightning", "wordcloud")
    machine.attach(dataset, slugify(TITLE))
    done = machine.run(CELL, place, SIM_GPU="1")
    assert (done.returncode, done.stderr) == (0, "")
    packages, clip = machine.asked("pip")
    lacking = [package for module, package in PACKAGES.items() if module not in ("lightning", "wordcloud")]
    assert [word for word in packages["pip"] if word in PACKAGES.values()] == lacking
    assert any(word.startswith("clip @ git+https://github.com/openai/CLIP.git@") for word in clip["pip"])
    for entry in (packages, clip):
        assert entry["pins"] == [f"{name}=={PINS[name]}" for name in KEPT]
        assert not {"-U", "--upgrade", "--force-reinstall", *KEPT} & set(entry["pip"])


def test_where_github_is_shut_off_clip_comes_from_pypi(machine, dataset):
    machine.has(*PACKAGES)
    machine.attach(dataset, slugify(TITLE))
    done = machine.run(CELL, "colab", SIM_GPU="1", SIM_PIP_FAILS="git+https")
    assert done.returncode == 0 and "from PyPI" in done.stdout
    failed, second = machine.asked("pip")
    assert second["pins"] == failed["pins"] and any(word.startswith("clip-anytorch==") for word in second["pip"])
    done = machine.run(CELL, "colab", SIM_GPU="1", SIM_PIP_FAILS="clip")
    assert done.returncode == 1 and "InputError: pip could not install clip" in done.stderr


@pytest.mark.parametrize("place", ["kaggle", "colab"])
def test_no_gpu_is_a_warning_with_the_click(full, dataset, place):
    full.attach(dataset, slugify(TITLE))
    done = full.run(CELL, place)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert len(told) == 3 and "tiny profile, on the CPU" in told[0] and GPU[place] in told[1]


@pytest.mark.parametrize("place", ["kaggle", "colab"])
def test_no_internet_stops_only_where_something_is_missing(machine, dataset, place):
    machine.has(*PACKAGES)
    machine.attach(dataset, slugify(TITLE))
    done = machine.run(CELL, place, SIM_GPU="1", SIM_OFFLINE="1")
    assert done.returncode == 1 and "OfflineError: clip must be downloaded" in done.stderr
    assert INTERNET[place] in done.stderr.splitlines()[-1] and not machine.log.read_text(), "pip was not asked"
    machine.has("clip")
    done = machine.run(CELL, place, SIM_GPU="1", SIM_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert len(told) == 3 and "not attached cannot be downloaded" in told[0] and INTERNET[place] in told[1]


def test_from_a_read_only_mount_the_shipped_captioner_captions(machine, dataset, tmp_path):
    """This machine's packages, the mounted project, and nothing else of it: no file there is written."""
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "work" / "photo.png")
    attached = machine.attach(dataset, f"datasets/ann/{slugify(TITLE)}")
    before = machine.listing(attached)
    done = subprocess.run(
        [sys.executable, "-m", "helpers.caption", "-f", "photo.png"], cwd=machine.work, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(attached), "PYTHONDONTWRITEBYTECODE": "1", "KAGGLE_KERNEL_RUN_TYPE": "Batch"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("photo.png\t"), done.stderr
    assert machine.listing(attached) == before
