"""Against a real HTTP server on this machine that can break off, lie and refuse."""

import errno
import functools
import hashlib
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from commands import call
from real_data import REAL, needs_real_data
from sae_transfer import cli
from sae_transfer.core.errors import UserError
from sae_transfer.data import fetch, sources
from sae_transfer.data.sources import File, Source
from sae_transfer.pipeline import versioning

ROOT = Path(__file__).parents[2]
BODY = bytes(range(256)) * 2000  # 512,000 bytes, several chunks
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY at any path, and counts how often."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.breaks_after, self.status, self.body = 0, None, None, BODY
        self.url = f"http://127.0.0.1:{self.server_port}/squad.json"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests += 1
        if server.status:
            return self.send_error(server.status)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body[: server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    threading.Thread(target=functools.partial(running.serve_forever, 0.01), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def source_of(server, digest=SHA256):
    return Source("Test", "home", "CC BY", "Somebody (2020)", (File("squad.json", server.url, digest),))


@pytest.fixture
def bring(server, tmp_path):
    return lambda digest=SHA256: fetch.fetch("test", source_of(server, digest), tmp_path / "test")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_is_brought_once_with_its_notice(server, bring, tmp_path, capsys):
    target = tmp_path / "test/squad.json"
    assert bring() == [target]
    assert target.read_bytes() == BODY
    assert files(tmp_path / "test") == ["README.md", "squad.json"]
    notice = (tmp_path / "test/README.md").read_text()
    assert all(part in notice for part in ("CC BY", "Somebody (2020)", server.url, SHA256))
    assert "100%" in capsys.readouterr().err
    assert bring() == []
    assert server.requests == 1


def test_a_truncated_file_is_never_taken_for_whole(server, bring, tmp_path):
    server.breaks_after = 100_000
    with pytest.raises(UserError, match=r"did not arrive \(.*100000 bytes read.*--from"):
        bring()
    assert files(tmp_path / "test") == []
    server.breaks_after = None
    bring()
    assert (tmp_path / "test/squad.json").read_bytes() == BODY


def test_a_wrong_checksum_keeps_nothing(server, bring, tmp_path):
    server.body = BODY[:-1] + b"x"
    with pytest.raises(UserError, match=r"squad\.json: sends not the original .* with --from"):
        bring()
    assert files(tmp_path / "test") == []


@pytest.mark.parametrize("status", [404, 503])
def test_an_address_that_refuses(server, bring, tmp_path, status):
    server.status = status
    with pytest.raises(UserError, match=rf"squad\.json: did not arrive \({status} .*with --from"):
        bring()
    assert files(tmp_path / "test") == []


def test_no_network(server, bring):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"did not arrive \(.*refused\); try again later.*--from"):
        bring()


def test_a_file_that_was_changed_is_neither_overwritten_nor_accepted(bring, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/squad.json").write_text("mine")
    with pytest.raises(UserError, match="not the original"):
        bring()
    assert (tmp_path / "test/squad.json").read_text() == "mine"


def test_no_room(bring, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.downloaders.open", refuse, raising=False)
    with pytest.raises(UserError, match="No space left on device"):
        bring()


def test_the_digest_of_a_git_blob_is_gits(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(BODY)
    done = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    assert fetch.matches(path, "git:" + done.stdout.strip())
    assert not fetch.matches(path, "git:" + "0" * 40)


@pytest.mark.parametrize("name", ["squad.json", "test/squad.json", "my copy.json"])
def test_files_that_the_user_has_are_known_by_name_or_content(server, tmp_path, name):
    held = tmp_path / "held" / name
    held.parent.mkdir(parents=True)
    held.write_bytes(BODY)
    fetch.fetch("test", source_of(server), tmp_path / "test", tmp_path / "held")
    assert (tmp_path / "test/squad.json").read_bytes() == BODY
    assert server.requests == 0


def test_files_that_the_user_lacks_or_that_differ(server, tmp_path):
    held = tmp_path / "held"
    for text, said in ((None, "no such folder"), ("", r"lacks squad\.json, under whatever name")):
        if text is not None:
            held.mkdir()
        with pytest.raises(UserError, match=said):
            fetch.fetch("test", source_of(server), tmp_path / "test", held)
    (held / "squad.json").write_text("other")
    with pytest.raises(UserError, match=r"held/squad\.json: not the original"):
        fetch.fetch("test", source_of(server), tmp_path / "test", held)
    assert not (tmp_path / "test/squad.json").exists()


def test_the_published_sources_are_complete():
    assert {name: [file.name for file in source.files] for name, source in sources.SOURCES.items()} == {
        "squad": ["train-v2.0.json", "dev-v2.0.json"],
        "idk": ["ACE-whQA-has-answer.json", "ACE-whQA-IDK-non-competitive.json", "ACE-whQA-IDK-competitive.json"],
        "boolq": ["train_full.json", "dev_full.json"],
    }
    for source in sources.SOURCES.values():
        assert source.licence
        for file in source.files:
            kind, digest = file.digest.split(":")
            assert len(bytes.fromhex(digest)) == {"sha256": 32, "git": 20}[kind]
            assert file.url.startswith("https://")
            assert file.url.endswith("/" + file.name)


@needs_real_data
def test_the_real_files_have_the_checksums_by_which_they_are_fetched(tmp_path):
    assert len(fetch.fetch("idk", sources.SOURCES["idk"], tmp_path / "idk", REAL)) == 3
    [dev] = [file for file in sources.SOURCES["boolq"].files if file.name == "dev_full.json"]
    assert fetch.matches(REAL / "BoolQ_3L-dev_full.json", dev.digest)


# The command, in a project with git and DVC


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))
    monkeypatch.chdir(folder)
    subprocess.run(["git", "init", "--quiet"], check=True)
    return folder


def type_(monkeypatch, capsys, *words):
    return call(monkeypatch, capsys, cli.main, *words)


def test_fetch_writes_a_dvc_file_that_git_keeps_and_that_names_no_remote(project, server, monkeypatch, capsys):
    monkeypatch.setattr(sources, "SOURCES", {"squad": source_of(server), "idk": source_of(server)})
    code, out, _ = type_(monkeypatch, capsys, "data", "fetch", "squad")
    assert code == 0, out
    assert out.splitlines() == [
        "data/external/squad: brought squad.json",
        "  licence: CC BY",
        "  to commit: data/external/squad.dvc data/external/.gitignore",
    ]
    [stored] = yaml.safe_load((project / "data/external/squad.dvc").read_text())["outs"]
    assert (stored["path"], stored["nfiles"]) == ("squad", 2)
    assert "remote" not in stored
    subprocess.run(["git", "add", "--all"], check=True)
    kept = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    assert "data/external/squad.dvc" in kept
    assert not [name for name in kept if name.startswith("data/external/squad/")]
    assert versioning.unkept([Path("data/external/squad")]) == []
    code, out, _ = type_(monkeypatch, capsys, "data", "fetch")
    assert code == 0
    assert "squad: already there" in out
    assert "idk: brought squad.json" in out


def test_fetch_tells_a_person_what_went_wrong(project, server, monkeypatch, capsys):
    code, _, err = type_(monkeypatch, capsys, "data", "fetch", "sqaud")
    assert (code, err) == (2, "error: dataset sqaud: not one that can be fetched; did you mean squad?\n")
    monkeypatch.setattr(sources, "SOURCES", {"squad": source_of(server)})
    server.status = 404
    code, _, err = type_(monkeypatch, capsys, "data", "fetch")
    assert code == 2
    assert err.count("\n") == 1
    assert not (project / "data/external/squad.dvc").exists()


def test_outside_a_dvc_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="DVC cannot track it"):
        versioning.track(Path("x"))
    with pytest.raises(UserError, match="run this from the project's root"):
        versioning.default_remote()


def test_the_default_remote_is_the_users(project):
    assert versioning.default_remote() is None
    subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-d", "mine", "/share"], check=True)
    assert versioning.default_remote() == ("mine", "/share")
