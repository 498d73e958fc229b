"""Files are whole or absent, equal values are equal bytes, and what cannot be read is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from sae_transfer.core import files
from sae_transfer.core.errors import UserError

TABLE = pd.DataFrame({"name": ["a", "é", None], "auc": [0.5, np.nan, 1 / 3], "n": [1, 2, 3]})
ARRAYS = {f"array{i}": np.arange(6, dtype=np.float32).reshape(2, 3) + i for i in range(5)}
ABOUT = {f"key{i}": f"value {i}" for i in range(12)}


def half_written(path):
    with files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
        assert path.read_text() == "old"
        raise RuntimeError


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "x.json"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError):
        half_written(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_written_file_is_readable_for_others_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "folder" / "x.json"
    files.write_json(path, {"b": 1, "a": "é"})
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["x.json"]
    assert files.read_json(path) == {"a": "é", "b": 1}


WRITER = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from sae_transfer.core import files
folder = Path(sys.argv[1])
for i in range(10**9):
    files.write_text(folder / "text.txt", str(i % 10) * 3_000_000)
    files.write_arrays(folder / "arrays.safetensors", {"x": np.full(500_000, i)}, {})
    files.write_table(folder / "table.csv", pd.DataFrame({"x": np.full(5_000, i)}))
"""


def assert_whole(folder):
    text = (folder / "text.txt").read_text()
    assert len(text) == 3_000_000
    assert len(set(text)) == 1
    if (folder / "table.csv").exists():
        assert len(set(files.read_arrays(folder / "arrays.safetensors")[0]["x"])) == 1
        assert len(files.read_table(folder / "table.csv")) == 5_000


def test_files_are_whole_whenever_the_writer_is_killed(tmp_path):
    for kill in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path])
        try:
            before = (tmp_path / "text.txt").stat().st_mtime_ns if kill else 0
            end = time.monotonic() + 60
            while not (tmp_path / "text.txt").exists() or (tmp_path / "text.txt").stat().st_mtime_ns == before:
                assert writer.poll() is None
                assert time.monotonic() < end
                time.sleep(0.005)
            for _ in range(15):  # a reader beside the writer never sees half a file either
                assert_whole(tmp_path)
            time.sleep(0.013 * kill)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert_whole(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path, value):
    files.write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == 1
    assert os.listdir(tmp_path) == ["x.json"]


WRITE_ALL = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from sae_transfer.core import files
folder = Path(sys.argv[1])
order = list(range(12)) if sys.argv[2] == "up" else list(range(11, -1, -1))
table = pd.DataFrame({"name": ["a", "é", None], "auc": [0.5, np.nan, 1 / 3], "n": [1, 2, 3]})
files.write_table(folder / "t.parquet", table)
files.write_table(folder / "t.csv", table)
files.write_json(folder / "j.json", {f"key{i}": i for i in order})
files.write_arrays(folder / "a.safetensors", {f"x{i}": np.arange(6.0) for i in order}, {f"k{i}": "v" for i in order})
"""


def test_equal_values_give_equal_bytes_in_every_process(tmp_path):
    for run, order in (("a", "up"), ("b", "up"), ("c", "down")):
        environment = os.environ | {"PYTHONHASHSEED": str(ord(run))}
        subprocess.run([sys.executable, "-c", WRITE_ALL, tmp_path / run, order], check=True, env=environment)
    for name in ("t.parquet", "t.csv", "j.json", "a.safetensors"):
        assert len({(tmp_path / run / name).read_bytes() for run in "abc"}) == 1, name


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_comes_back_as_it_was(tmp_path, name):
    files.write_table(tmp_path / name, TABLE)
    pd.testing.assert_frame_equal(files.read_table(tmp_path / name), TABLE)


def test_arrays_and_their_metadata_come_back_as_they_were(tmp_path):
    arrays = ARRAYS | {
        "transposed": np.arange(12.0).reshape(3, 4).T,  # safetensors writes its memory, whatever its strides say
        "every other": np.arange(10)[::2],
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4), np.int64),
    }
    for about in (ABOUT, {"one": "é"}, {}):
        files.write_arrays(tmp_path / "a.safetensors", arrays, about)
        found, found_about = files.read_arrays(tmp_path / "a.safetensors")
        assert found_about == about
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert np.array_equal(found[name], array), name


def damages(data):
    yield b""
    yield b"\x07" * 300
    yield data[: len(data) // 2]
    yield data[:-3]


@pytest.mark.parametrize("name", ["t.parquet", "a.safetensors", "j.json"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, name):
    write = {
        "t.parquet": lambda path: files.write_table(path, TABLE),
        "a.safetensors": lambda path: files.write_arrays(path, ARRAYS, ABOUT),
        "j.json": lambda path: files.write_json(path, {"a": [1, 2]}),
    }[name]
    read = {"t.parquet": files.read_table, "a.safetensors": files.read_arrays, "j.json": files.read_json}[name]
    path = tmp_path / name
    write(path)
    for data in damages(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read(path)
        said = str(caught.value)
        assert said.startswith(f"{path}")
        assert said.endswith("delete it and run `dvc repro`")
        assert "\n" not in said


def test_a_parquet_file_damaged_inside_is_named_too(tmp_path):
    path = tmp_path / "t.parquet"
    files.write_table(path, TABLE)
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 60 + data[64:])  # magic bytes and footer are whole
    with pytest.raises(UserError, match=r"t\.parquet: damaged \(.*\); delete it and run `dvc repro`"):
        files.read_table(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00a,b\n", b'a,b\n1,"2\n', b"a,b\n1,2,3\n1,2,3,4\n"])
def test_a_damaged_csv_is_named_with_its_remedy(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.csv: damaged \(.*\); delete it and run `dvc repro`"):
        files.read_table(tmp_path / "t.csv")


def test_broken_json_names_its_line(tmp_path):
    (tmp_path / "j.json").write_text('{\n"a": 1,\n}\n')
    with pytest.raises(UserError, match=r"j\.json line [23]: not valid JSON"):
        files.read_json(tmp_path / "j.json")
    (tmp_path / "j.json").write_bytes(b'"\xff"')
    with pytest.raises(UserError, match=r"j\.json: damaged"):
        files.read_json(tmp_path / "j.json")


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("data/demo/x.jsonl", "`dvc pull data.dvc` brings it"),
        ("models/demo/x.safetensors", "`dvc pull models.dvc` brings it"),
        ("artifacts/prompts/x.parquet", "`dvc repro` makes it"),
        ("results/x.csv", "`dvc repro` makes it"),
        ("other/models/x.json", "`dvc repro` makes it"),
    ],
)
def test_a_missing_file_names_the_command_that_brings_it(tmp_path, monkeypatch, path, remedy):
    monkeypatch.chdir(tmp_path)
    read = {".json": files.read_json, ".safetensors": files.read_arrays}.get(Path(path).suffix, files.read_table)
    if path.endswith(".jsonl"):
        assert str(files.missing(Path(path))) == f"{path}: not found; {remedy}"
        return
    with pytest.raises(UserError) as caught:
        read(Path(path))
    assert str(caught.value) == f"{path}: not found; {remedy}"


def test_a_caller_may_know_better_what_brings_a_file():
    path = Path("data/external/squad/dev.json")
    assert str(files.missing(path, "ask a friend")) == f"{path}: not found; ask a friend"
    assert files.restore_command(path) is None  # data.dvc does not hold it
    assert files.restore_command(Path("data/paper/equation.jsonl")) == "`dvc pull data.dvc` brings it"


def test_the_metadata_is_one_entry(tmp_path):
    """Of several, safetensors chooses the order by the process."""
    files.write_arrays(tmp_path / "a.safetensors", ARRAYS, ABOUT)
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert len(header["__metadata__"]) == 1


def test_arrays_with_foreign_metadata_are_damaged(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"about": "{half of"})
    with pytest.raises(UserError, match=r"a\.safetensors: damaged"):
        files.read_arrays(tmp_path / "a.safetensors")


def test_work_that_does_not_fit_on_the_disk_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000_000))
    files.check_room(tmp_path / "artifacts", 2_000_000_000)
    with pytest.raises(UserError, match=r"artifacts: needs about 3.5 GB, the disk has 2.0 GB free; make room"):
        files.check_room(tmp_path / "artifacts", 3_500_000_000)
