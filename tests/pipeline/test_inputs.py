"""What a study reads identifies its items, wherever it lies: nobody declares it."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import demo_params
from sae_transfer.core import files, hashing
from sae_transfer.core.errors import UserError
from sae_transfer.pipeline import checks, inputs
from sae_transfer.pipeline.study import Study


def weights(path, seed, n=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.random.default_rng(seed).random(n).tofile(path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A study whose model, SAEs and datasets lie outside of its folder; (params, where they lie)."""
    outside = tmp_path / "elsewhere"
    for name in ("model/model.safetensors", "sae/weights.safetensors", "other/weights.safetensors", "d.jsonl"):
        weights(outside / name, 0)
    params = demo_params.demo(
        saes={"near": {"layer": 2, "path": str(outside / "sae")}, "far": {"layer": 3, "path": "../elsewhere/other"}},
        datasets={"d": {"loader": "table", "path": str(outside / "d.jsonl"), "n_train": 240, "n_test": 4}},
    )
    params["study"] = {"datasets": ["d"], "saes": ["near", "far"]}
    params["model"]["name"] = "../elsewhere/model"
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    return params, outside


def flat(found):
    several = {(kind, name): value for kind in ("saes", "datasets") for name, value in found[kind].items()}
    return {("model",): found["model"]} | several


def hashes(params):
    demo_params.write(params)
    study = Study.open()
    inputs.run(study)
    return inputs.read(study)


@pytest.mark.parametrize(
    ("replaced", "of"),
    [
        ("model/model.safetensors", ("model",)),
        ("model/tokenizer.json", ("model",)),
        ("sae/weights.safetensors", ("saes", "near")),
        ("other/weights.safetensors", ("saes", "far")),
        ("d.jsonl", ("datasets", "d")),
    ],
)
def test_whatever_is_replaced_outside_the_project_changes_what_is_made_of_it_and_nothing_else(elsewhere, replaced, of):
    params, outside = elsewhere
    before = flat(hashes(params))
    weights(outside / replaced, 1)
    after = flat(hashes(params))
    assert {place for place in after if after[place] != before[place]} == {of}


def test_a_link_is_read_where_it_leads_and_a_circle_of_links_ends(elsewhere):
    params, outside = elsewhere
    (outside / "model/inner").symlink_to(outside / "sae", target_is_directory=True)
    (outside / "sae/back").symlink_to(outside, target_is_directory=True)
    before = hashes(params)["model"]
    weights(outside / "sae/weights.safetensors", 1)
    assert hashes(params)["model"] != before


def large(folder, seed=0):
    weights(folder / "large.bin", seed, hashing.Remembered.LARGE // 8)
    return folder / "large.bin"


def remembered(cache, path):
    hashes = hashing.Remembered(cache)
    found = hashes(path)
    hashes.save()
    return found


def test_a_large_file_is_hashed_once_until_it_changes_in_whatever_way(tmp_path, monkeypatch):
    path, cache = large(tmp_path), tmp_path / "cache.json"
    monkeypatch.setattr(hashing.Remembered, "SETTLED", 0)
    first = remembered(cache, path)
    assert first == hashing.sha256(path)
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "sha256", lambda path: pytest.fail("hashed again"))
        assert remembered(cache, path) == first
    times = path.stat()
    large(tmp_path, seed=1)  # as long as before, and of the same time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remembered(cache, path) == hashing.sha256(path) != first
    shutil.copy2(large(tmp_path / "other", seed=2), path.with_name("new"))
    path.with_name("new").replace(path)
    assert remembered(cache, path) == hashing.sha256(path)


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path):
    path, cache = large(tmp_path), tmp_path / "cache.json"
    remembered(cache, path)
    assert not cache.exists()
    assert time.time_ns() - path.stat().st_ctime_ns < hashing.Remembered.SETTLED


@pytest.mark.parametrize("text", ["{", "[1]", '{"PATH": 5}', '{"PATH": [1, 2, 3]}'])
def test_a_damaged_memory_costs_time_alone(tmp_path, text):
    path, cache = large(tmp_path), tmp_path / "cache.json"
    cache.write_text(text.replace("PATH", str(path)))
    assert remembered(cache, path) == hashing.sha256(path)


def test_what_is_not_there_keeps_its_hash_and_what_never_was_is_named(elsewhere):
    params, outside = elsewhere
    before = hashes(params)
    shutil.rmtree(outside / "model")
    assert hashes(params) == before
    with pytest.raises(UserError, match="typo: not found"):  # which is another model, not the one that was there
        hashes(params | {"model": params["model"] | {"name": str(outside / "typo")}})
    Path("artifacts/inputs.json").unlink()
    with pytest.raises(UserError, match=r"\.\./elsewhere/model: not found"):
        hashes(params)


def test_what_comes_from_the_hub_has_its_pinned_commit(elsewhere):
    params, _ = elsewhere
    params["model"] |= {"name": "openai-community/gpt2", "revision": "v1"}
    params["saes"]["near"] = {"layer": 2, "release": "gpt2-small-res-jb", "id": "blocks.3.hook_resid_pre"}
    with pytest.raises(UserError, match=r"^pins/hub\.json: not found; `sae-transfer preset pin` writes it$"):
        hashes(params)
    with pytest.raises(UserError, match=r"^pins/hub\.json: not found; `sae-transfer preset pin` writes it$"):
        checks.check(demo_params.parsed(params))
    repository, commit, other = "jbloom/GPT2-Small-SAEs-Reformatted", "a" * 40, "b" * 40
    files.write_json(Path("pins/hub.json"), {"openai-community/gpt2": commit, repository: "unpinned"})
    with pytest.raises(UserError, match="does not name openai-community/gpt2@v1; run `sae-transfer preset pin`"):
        hashes(params)
    files.write_json(Path("pins/hub.json"), {"openai-community/gpt2@v1": commit, repository: "unpinned"})
    before = hashes(params)
    assert before["model"] == f"openai-community/gpt2@v1 {commit}"
    assert before["saes"]["near"] == "gpt2-small-res-jb blocks.3.hook_resid_pre unpinned"
    files.write_json(Path("pins/hub.json"), {"openai-community/gpt2@v1": other, repository: commit})
    after = hashes(params)
    assert after["model"].endswith(other)
    assert after["saes"] == before["saes"] | {"near": f"gpt2-small-res-jb blocks.3.hook_resid_pre {commit}"}
    assert json.loads(Path("artifacts/inputs.json").read_text()) == after


def test_an_sae_outside_the_project_is_encoded_anew_when_its_weights_are_replaced(fresh, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(fresh.folder / "models/demo/saes/narrow_3", mine)
    fresh.edit(lambda params: params["saes"]["narrow_3"].update(path=str(mine)))
    before = fresh.hashes("artifacts/features")
    assert fresh.stages("inputs", "encode")[0] == 0
    assert fresh.hashes("artifacts/features") == before  # the same weights at another place are the same
    weights = load_file(mine / "sae_weights.safetensors")
    (mine / "sae_weights.safetensors").unlink()  # a link to the demo's own
    save_file(weights | {"W_enc": weights["W_enc"] * 0.95}, mine / "sae_weights.safetensors", {"format": "pt"})
    assert fresh.stages("inputs", "encode")[0] == 0
    after = fresh.hashes("artifacts/features")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
