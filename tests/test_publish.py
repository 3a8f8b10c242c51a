"""The address written into every notebook and nothing else changed; Kaggle's folders, taken by the real kaggle client."""

import http.server
import importlib
import io
import json
import os
import re
import shutil
import threading
import traceback
import zipfile
from pathlib import Path

import pytest
import requests

from helpers import publish
from helpers.environment import ROOT, shown
from helpers.errors import InputError, OfflineError
from helpers.evaluation import SYSTEMS
from helpers.first_cell import BADGES, find_notebooks, write_cells, write_links
from helpers.kaggle_folders import TITLE, slugify, write_folders

NOTEBOOKS = find_notebooks(ROOT)


@pytest.fixture
def project(tmp_path):
    """A copy of what the address is written into."""
    root = tmp_path / "project"
    (root / "helpers").mkdir(parents=True)
    shutil.copyfile(ROOT / "helpers" / "bootstrap.py", root / "helpers" / "bootstrap.py")
    shutil.copyfile(ROOT / "README.md", root / "README.md")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    write_cells(root)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def without_what_is_written(path: Path) -> list[str]:
    """A notebook's lines as they stand in the file, without the sources of its heading and its first code cell."""
    text = path.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    for cell in (cells[0], next(cell for cell in cells if cell["cell_type"] == "code")):
        for line in cell["source"]:
            text = re.sub(rf"^ +{re.escape(json.dumps(line, ensure_ascii=False))},?\n", "", text, count=1, flags=re.MULTILINE)
    return text.splitlines()


# --- links and cells


def test_the_address_is_written_everywhere_and_nothing_else_changes(project):
    before = {path.name: without_what_is_written(path) for path in find_notebooks(project)}
    changed = write_links("ann/captions", project)
    assert changed == ["bootstrap.py", "README.md", *before]
    cell = (project / "helpers" / "bootstrap.py").read_text()
    assert 'REPOSITORY = "ann/captions"' in cell
    assert cell.replace("ann/captions", "") == (ROOT / "helpers" / "bootstrap.py").read_text()
    for path in find_notebooks(project):
        cells = json.loads(path.read_text())["cells"]
        assert "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"]) + "\n" == cell
        heading, empty, line, empty_too, *rest = "".join(cells[0]["source"]).split("\n")
        assert heading.startswith("# ") and not empty and not empty_too and rest
        there = f"ann/captions/blob/main/notebooks/{path.name}"
        assert line == (
            "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
            f"(https://kaggle.com/kernels/welcome?src=https://github.com/{there}) "
            "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{there})"
        )
        assert without_what_is_written(path) == before[path.name], "outputs, counts, ids and all other cells"


def test_a_second_time_and_another_address_leave_one_set_of_badges(project):
    none = files(project)
    assert not any(BADGES.search(content.decode()) for content in none.values()), "until then there is none"
    write_links("ann/captions", project)
    first = files(project)
    assert write_links("ann/captions", project) == [] and files(project) == first
    write_links("Bob-2/other.repo_1", project)
    for name, content in files(project).items():
        text = content.decode()
        rows = len(re.findall(r"^\| \[[^]]*\]\(notebooks/\w+\.ipynb\)", text, re.MULTILINE))
        wanted = {"README.md": rows, "helpers/bootstrap.py": 0}.get(name, 1)
        assert wanted or name != "README.md"
        assert len(BADGES.findall(text)) == text.count("Open in Kaggle") == text.count("Open in Colab") == wanted
        assert "ann/captions" not in text
    write_links("ann/captions", project)
    assert files(project) == first


def test_the_readme_is_otherwise_the_same(project):
    before = (project / "README.md").read_text()
    write_links("ann/captions", project)
    after = (project / "README.md").read_text()
    assert re.sub(rf"<br>{BADGES.pattern}", "", after) == before
    listed = set(re.findall(r"^\| \[.*?\]\(notebooks/(\w+)\.ipynb\)<br>\[!\[Open in Kaggle\]", after, re.MULTILINE))
    assert listed and all(f"main/notebooks/{name}.ipynb" in after for name in listed)


@pytest.mark.parametrize("name", ["", "ann", "ann/", "/captions", "ann/captions/tree", "https://github.com/ann/captions",
                                  "ann/cap tions", "-ann/captions", "ann/..", 'ann/"; import os', "ann/c.git", "ann/c\n"])
def test_what_is_no_repository_is_refused_and_nothing_written(project, name):
    before = files(project)
    with pytest.raises(InputError, match="give OWNER/REPO"):
        write_links(name, project)
    assert files(project) == before


def test_a_notebook_or_readme_that_does_not_fit_stops_all_of_it(project):
    odd = project / "notebooks" / "99_odd.ipynb"
    code = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": ["x = 1"]}
    odd.write_text(json.dumps({"cells": [code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    before = files(project)
    for write in (lambda: write_cells(project), lambda: write_links("ann/captions", project)):
        with pytest.raises(InputError, match=r"99_odd\.ipynb: its first code cell"):
            write()
    assert files(project) == before
    code["source"] = ['REPOSITORY = ""']
    odd.write_text(json.dumps({"cells": [code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    with pytest.raises(InputError, match="no place for the badges"):
        write_links("ann/captions", project)
    assert write_cells(project) == ["99_odd.ipynb"]
    odd.unlink()
    (project / "README.md").write_text("# A title\n")
    with pytest.raises(InputError, match=r"README\.md has no table"):
        write_links("ann/captions", project)


def test_the_commands(project, monkeypatch, capsys):
    monkeypatch.setattr(publish, "write_links", lambda repository: write_links(repository, project))
    monkeypatch.setattr(publish, "write_cells", lambda: write_cells(project))
    assert publish.main(["cells"]) == 0 and "nothing, all notebooks had it" in capsys.readouterr().out
    assert publish.main(["links", "ann/captions"]) == 0
    out = capsys.readouterr().out
    assert f"README.md, {NOTEBOOKS[0].name}" in out and re.search(r"git tag v\d+\.\d+\.\d+\n", out)
    assert publish.main(["links", "ann"]) == 2 and capsys.readouterr().err.startswith("error: 'ann' is no repository")


# --- Kaggle's folders


class Kaggle:
    """Kaggle's servers, as the real client meets them: what it sends is kept, and answered."""

    def __init__(self):
        self.requests: dict[str, dict] = {}
        self.uploads: dict[str, bytes] = {}

    def send(self, session, request, **_):
        answer = requests.Response()
        answer.status_code, answer.headers["Content-Type"], answer.request = 200, "application/json", request
        name = request.url.rsplit("/", 1)[-1]
        content = {}
        if request.method == "PUT":
            self.uploads[name] = request.body.read()
        elif name == "GetDatasetStatus":  # there is no such dataset yet
            answer.status_code, content = 404, {"code": 404, "message": "not found"}
        else:
            sent = json.loads(request.body)
            self.requests[name] = sent
            if name == "StartBlobUpload":
                content = {"token": f"token of {sent['name']}", "createUrl": f"https://storage.invalid/{sent['name']}"}
        answer.raw = io.BytesIO(json.dumps(content).encode())
        return answer


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """The real client, logged in with a key that goes nowhere: (client, what it sent)."""
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_USERNAME", "ann")
    monkeypatch.setenv("KAGGLE_KEY", "secret-key")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # it remembers uploads there
    server = Kaggle()
    monkeypatch.setattr(requests.Session, "send", lambda session, request, **options: server.send(session, request, **options))
    from kaggle.api.kaggle_api_extended import KaggleApi

    client = KaggleApi()
    client.authenticate()
    return client, server


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders("ann", tmp_path_factory.mktemp("kaggle"))


@pytest.mark.parametrize("number", range(len(NOTEBOOKS)), ids=lambda number: NOTEBOOKS[number].stem)
def test_the_real_client_takes_a_notebooks_folder(kaggle, folders, number, capsys):
    client, server = kaggle
    folder, notebook = folders[number + 1], NOTEBOOKS[number]
    client.kernels_push(str(folder))
    assert capsys.readouterr().out == "", "a title that does not give the slug is printed"
    sent = server.requests["SaveKernel"]
    assert sent["slug"] == f"ann/{folder.name}" and sent["newTitle"].lower().replace(" ", "-") == folder.name
    assert 5 <= len(sent["newTitle"]) <= 50 and notebook.stem[:2] in sent["newTitle"]
    assert (sent["language"], sent["kernelType"], sent["machineShape"]) == ("python", "notebook", "NvidiaTeslaT4")
    assert sent["isPrivate"] and sent["enableGpu"] and sent["enableInternet"]
    assert [cell["source"] for cell in json.loads(sent["text"])["cells"]] == [
        "".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ]
    assert sent["datasetDataSources"][0] == f"ann/{slugify(TITLE)}"
    known = {folder.name for folder in folders[1:number + 1]}
    assert {source.removeprefix("ann/") for source in sent.get("kernelDataSources", [])} <= known, "earlier ones only"


def test_what_each_notebook_attaches(folders):
    metadata = [json.loads((folder / "kernel-metadata.json").read_text()) for folder in folders[1:]]
    photos = {entry["code_file"][:2]: entry["dataset_sources"][1:] for entry in metadata}
    splits = "shtvkumar/karpathy-splits"
    assert photos["00"] == [], "it captions drawings"
    assert {number: names for number, names in photos.items() if names != ["adityajn105/flickr8k", splits]} == {"00": []}
    read = {entry["code_file"][:2]: [source.split("-")[2] for source in entry["kernel_sources"]] for entry in metadata}
    wanted = {"05": ["02", "03", "04"], "06": ["02", "03", "04", "05"], "07": ["02", "03", "04", "05"]}
    assert read == {number: wanted.get(number, []) for number in read}
    captioners = sorted(system.notebook[:2] for system in SYSTEMS.values())
    assert read["06"] == captioners and read["05"] == [number for number in captioners if number != "05"]


def test_the_real_client_takes_the_helpers(kaggle, folders):
    """As zips, one a folder, which Kaggle unpacks into folders of their names."""
    client, server = kaggle
    client.dataset_create_new(str(folders[0]), quiet=True, dir_mode="zip")
    sent = server.requests["CreateDataset"]
    assert (sent["ownerSlug"], sent["slug"], sent["title"]) == ("ann", slugify(TITLE), TITLE)
    assert sent["isPrivate"] and len(sent["files"]) == len(server.uploads)
    arrived = {}
    for name, content in server.uploads.items():
        if name.endswith(".zip"):
            pack = zipfile.ZipFile(io.BytesIO(content))
            arrived |= {f"{name.removesuffix('.zip')}/{inner}": pack.read(inner) for inner in pack.namelist()}
        else:
            arrived[name] = content
    here = files(folders[0])
    del here["dataset-metadata.json"]
    assert arrived == here and "data/tiny/clip-vit.pt" in here and "helpers/bootstrap.py" in here
    assert not any(name.endswith((".zip", ".gz", ".tar", ".7z", ".pyc")) or not content for name, content in here.items()), \
        "Kaggle would unpack or drop it"  # fmt: skip


@pytest.mark.parametrize("name", ["", "Ann", "ann b", "ann/captions", "../ann", "ann-", "ann@mail.org", "https://kaggle.com/ann"])
def test_what_is_no_user_is_refused(name, tmp_path, capsys):
    assert publish.main(["kaggle", "--user", name, "--out", str(tmp_path / "out")]) == 2
    assert "is no Kaggle user" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "out").touch()
    assert publish.main(["kaggle", "--user", "ann", "--out", str(tmp_path / "out")]) == 2
    assert "out cannot be written to" in capsys.readouterr().err


def test_what_is_there_is_replaced_only_if_it_is_ours(tmp_path, capsys):
    (tmp_path / slugify(TITLE)).mkdir()
    (tmp_path / slugify(TITLE) / "thesis.tex").write_text("mine")
    assert publish.main(["kaggle", "--user", "ann", "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert list(files(tmp_path)) == [f"{slugify(TITLE)}/thesis.tex"]
    (tmp_path / slugify(TITLE) / "thesis.tex").unlink()
    (tmp_path / slugify(TITLE) / "dataset-metadata.json").write_text("{}")
    (tmp_path / slugify(TITLE) / "old.py").touch()
    write_folders("ann", tmp_path)
    assert not (tmp_path / slugify(TITLE) / "old.py").exists()


def test_the_commands_come_in_order_and_name_no_home(tmp_path, monkeypatch, capsys):
    """A notebook is pushed after those whose checkpoints it reads; no token and no home folder is printed or packed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "realname"))
    for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret-token")
    out = tmp_path / "home" / "realname" / "my folders"
    assert publish.main(["kaggle", "--user", "ann", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert not told.err and "realname" not in told.out and "secret" not in told.out
    commands = [line for line in told.out.splitlines() if line.startswith("kaggle ")]
    assert commands[0] == f"kaggle datasets create --dir-mode zip -p ~/'my folders/{slugify(TITLE)}'"
    pushed = [line.rpartition("/")[2].strip("'") for line in commands if line.startswith("kaggle kernels push")]
    for folder in pushed:
        metadata = json.loads((out / folder / "kernel-metadata.json").read_text())
        assert {source.partition("/")[2] for source in metadata["kernel_sources"]} <= set(pushed[:pushed.index(folder)])
    assert len(pushed) == len(NOTEBOOKS)
    for name, content in files(out).items():
        assert b"secret-token" not in content and b"realname" not in content, name


# --- what must never be printed


@pytest.mark.parametrize(("door", "arguments"), [
    ("caption", ["-f", "{}/photo.jpg"]), ("caption", ["-f", "{}/photo.jpg", "--checkpoint", "{}/checkpoint"]),
    ("caption", ["--folder", "{}/photos"]), ("search", ["--folder", "{}/photos", "a dog"]),
    ("score", ["{}/predictions.json", "{}/references.json"]), ("results", ["{}/outputs"]),
    ("train", ["clipcap", "--dataset", "folder", "--data-dir", "{}/photos"]), ("publish", ["kaggle", "--user", "A"]),
])  # fmt: skip
def test_no_command_names_the_home_folder(door, arguments, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home" / "realname"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    arguments = [argument.format(home) for argument in arguments]
    assert importlib.import_module(f"helpers.{door}").main(arguments) != 0
    told = capsys.readouterr()
    assert told.err and "realname" not in told.out + told.err


def test_no_path_and_no_error_names_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "realname"))
    assert shown(tmp_path / "realname" / "outputs") == "~/outputs"
    for kind in (InputError, OfflineError):
        assert str(kind(f"{tmp_path}/realname/photo.jpg is damaged")) == "~/photo.jpg is damaged"


def test_no_refusal_of_a_hub_shows_a_token(tmp_path, monkeypatch, capfd):
    """The real clients, refused by their servers: neither message nor traceback holds the token that they sent."""
    from huggingface_hub import constants

    from helpers import share

    monkeypatch.setattr(share, "require_network", lambda *_, **__: None)
    monkeypatch.setattr(share, "read_config", lambda folder: {})
    monkeypatch.setattr(share, "model_card", lambda *_: "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret-token")
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    headers = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            headers.append(self.headers["Authorization"])
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    send = requests.Session.send

    def divert(session, request, **options):
        request.url = address
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", divert)
    (tmp_path / "checkpoint").mkdir()
    for publish_it in (share.to_kaggle, share.to_hub):
        with pytest.raises(InputError, match="refuses") as caught:
            publish_it(tmp_path / "checkpoint", "ann/captions")
        assert headers.pop() == "Bearer secret-token"
        assert "secret-token" not in "".join(traceback.format_exception(caught.value))
    server.shutdown()
    server.server_close()
    assert "secret-token" not in "".join(capfd.readouterr())
