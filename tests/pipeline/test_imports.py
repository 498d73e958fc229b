"""Activations that another tool cached: how they enter a study, and what is refused before anything is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import demo_params
from project import SAE
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import read_yaml
from sae_transfer.pipeline import checks, extract, imports, inputs, prepare
from sae_transfer.pipeline.extract import _inputs_of_shards
from sae_transfer.pipeline.study import Study

HOOK, N, D = "blocks.3.hook_resid_post", 40, 6
ARRAYS = Path("rows.npz")
PARAMS = demo_params.demo(
    study={"datasets": ["people"], "saes": []},
    model={"name": "models/tiny", "layers": [3]},
    datasets={"people": {"loader": "table", "path": "people.jsonl", "n_train": 4, "n_test": 4}},
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a model with 6 numbers a token, and beside it a table and activations of 40 rows."""
    monkeypatch.chdir(tmp_path)
    demo_params.write(PARAMS)
    Path("models/tiny").mkdir(parents=True)
    Path("models/tiny/config.json").write_text(json.dumps({"hidden_size": D, "num_hidden_layers": 4}))
    table = pd.DataFrame({"id": range(N), "label": np.arange(N) % 2})
    table.to_csv("bare.csv", index=False)
    table.assign(text=[f"Is {i} odd?" for i in range(N)], pair=np.arange(N) // 2).to_csv("rows.csv", index=False)
    np.savez(ARRAYS, **{HOOK: np.random.default_rng(0).normal(size=(N, D))})
    return Study.open()


def bring(study, rows="bare.csv", arrays=(ARRAYS,), name="own", **options):
    columns = {key: options.pop(key) for key in list(options) if key in ("label", "prompt", "group", "positive")}
    return imports.bring(study, name, Path(rows), [Path(path) for path in arrays], columns=columns, **options)


# through the pipeline


def cached(study, dataset="people"):
    """What another tool could have cached of a dataset: a table in an order of its own, and the streams of its rows."""
    at = np.random.default_rng(0).permutation(study.at(dataset, None))
    table = study.prompts(dataset).iloc[at][["id", "label", "group", "prompt"]]
    return table.assign(id=[id_.partition(":")[2] for id_ in table["id"]]), study.activations(3, dataset)[at]


def quick(params):
    params["probe"] |= {"C_grid": [0.1], "N": [2], "top_k": 1, "repeats": 2, "matched_n_train": 60}
    params["transfer"]["resamples"] = 20
    params["study"]["datasets"].remove("passages")


def test_the_same_rows_are_worth_the_same_without_a_model(fresh):
    before = fresh.study
    table, stream = cached(before)
    table.rename(columns={"prompt": "text", "label": "truth"}).to_csv("rows.csv", index=False)
    table[["id", "label"]].to_csv("bare.csv", index=False)
    np.savez(ARRAYS, **{HOOK: stream})
    fresh.edit(quick)
    sizes = ("--n-train", "40", "--n-test", "30")
    words = ("import-activations", "mine", "rows.csv", str(ARRAYS), *sizes, "--prompt", "text", "--label", "truth")
    code, said, error = fresh.cli(*words)
    assert code == 0, error
    assert "data/external/mine: 100 rows of 128 numbers, layers 3" in said
    assert Path("data/external/mine.dvc").is_file()
    bring(fresh.study, name="bare", n_train=40, n_test=30)
    shutil.rmtree("models/demo/model")  # nobody runs a model on what was imported
    for stage in ("inputs", "prepare", "extract", "judge", "encode", "fit", "transfer"):
        code, _, error = fresh.stage(stage)
        assert code == 0, error
    study = fresh.study
    assert study.datasets == ("people", "mine", "bare")
    place = {prompt: i for i, prompt in enumerate(before.prompts("people")["prompt"])}
    at = [place[prompt] for prompt in study.prompts("mine")["prompt"]]
    np.testing.assert_array_equal(study.activations(3, "mine"), before.activations(3, "people")[at])
    encoded = before.matrix(before.space(SAE), "people")[at].toarray()
    np.testing.assert_allclose(study.matrix(study.space(SAE), "mine").toarray(), encoded, atol=1e-4)
    assert study.about_activations("mine")["weights_sha256"] == imports.IMPORTED
    rows = pd.concat([pd.read_parquet(f"artifacts/transfer/text/{name}.rows.parquet") for name in study.datasets])
    worded = {(a, b) for a in ("people", "mine") for b in ("people", "mine")}
    assert set(zip(rows["train"], rows["test"], strict=True)) == worded
    assert set(study.scores(study.all_spaces[-1])["test"]) == {"people"}  # which the model judged, as it was there
    test = study.rows(SAE, "mine", "test")
    assert np.mean(study.probe(SAE, "bare").predict(test.X) == test.labels) > 0.8


def test_their_hash_decides_what_is_made_anew(study):
    bring(study)
    params = read_yaml(Path("params.yaml"))
    demo_params.write(params | {"study": params["study"] | {"datasets": ["own"]}})
    Path("versions.yaml").write_text("prepare: 1\nextract: 1\n")
    shutil.rmtree("models")  # which nothing here needs
    made = []
    for factor in (1, 1, 2):
        np.savez(ARRAYS, **{HOOK: factor * np.ones((N, D))})
        bring(Study.open())
        for stage in (inputs, prepare):
            stage.run(Study.open())
        made.append(_inputs_of_shards(Study.open(), "own"))
    assert made[0] == made[1] != made[2]
    extract.run(Study.open())
    assert (Study.open().activations(3, "own") == 2).all()


# formats


@pytest.mark.parametrize("ending", ["npz", "npy", "safetensors", "bfloat16"])
def test_every_format_gives_the_same_streams(study, ending):
    stream = np.load(ARRAYS)[HOOK].astype(np.float32)
    path = Path("own.safetensors" if ending == "bfloat16" else f"own.{ending}")
    if ending == "npy":
        np.save(path, stream)
    elif ending == "npz":
        np.savez_compressed(path, **{"model.layers.3": stream.astype(np.float64)})
    elif ending == "safetensors":
        safetensors.numpy.save_file({"layer_3": stream, "layer_7": stream}, path)
    else:
        half = torch.from_numpy(stream).bfloat16()
        safetensors.torch.save_file({"3": half}, path)
        stream = half.float().numpy()
    bring(study, arrays=[path], layer=3 if ending == "npy" else None)
    found = safetensors.numpy.load_file("data/external/own/activations.safetensors")
    assert list(found) == ["layer_3"]
    np.testing.assert_array_equal(found["layer_3"], stream)


def test_params_keep_their_comments_and_the_rows_their_texts(study):
    text = "# mine\n" + Path("params.yaml").read_text().replace("probe:", "\n# how to train\nprobe:")
    Path("params.yaml").write_text(text)
    bring(study, "rows.csv", prompt="text", group="pair")
    lines = Path("params.yaml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  own: {loader: table"))
    assert lines[at + 1 : at + 4] == ["", "# how to train", "probe:"]
    assert set(text.splitlines()) <= set(lines)
    rows = [json.loads(line) for line in Path("data/external/own/rows.jsonl").read_text().splitlines()]
    own = pd.read_csv("rows.csv", dtype=str)
    assert [(row["id"], row["prompt"], row["group"]) for row in rows] == list(
        own[["id", "text", "pair"]].itertuples(index=False, name=None)
    )
    section = Study.open().params.datasets["own"]
    assert (section.n_train.total, section.n_test.total, section.has_prompts) == (20, 16, True)


def test_what_was_imported_is_imported_again(study):
    bring(study)
    assert not Study.open().params.datasets["own"].has_prompts
    bring(Study.open(), "rows.csv", prompt="text")
    assert Study.open().params.datasets["own"].has_prompts
    assert Study.open().datasets == ("people", "own")


# what a person gets wrong


def refused(study, message, *, before, **options):
    with pytest.raises(UserError) as caught:
        bring(study, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert Path("params.yaml").read_text() == before
    assert not [path for path in Path("data/external").rglob("*") if path.is_file()]


def with_hole(stream):
    stream[4, 2] = np.nan
    return {HOOK: stream}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_hole, f"rows.npz, {HOOK}: nan in row 4, column 2; leave that row out"),
        (lambda x: {HOOK: x * 1e300}, f"rows.npz, {HOOK}: "),
        (
            lambda x: {HOOK: x[:-1]},
            f"rows.npz, {HOOK}: the shape is [39, 6], and there are 40 rows; give [40, d_model]",
        ),
        (lambda x: {HOOK: x[:, None]}, f"rows.npz, {HOOK}: the shape is [40, 1, 6]"),
        (lambda x: {HOOK: x[:, :4]}, "rows.npz: layer 3 has 4 numbers a row, but models/tiny has 6"),
        (
            lambda x: {HOOK: x.astype(object)},
            "rows.npz: cannot be read (Object arrays cannot be loaded when allow_pickle",
        ),
        (lambda x: {HOOK: x.astype(str)}, "rows.npz: cannot be read (str"),
        (lambda x: {"layer_2": x}, "layers [2] are given, and the study reads [3]; give layer 3 too"),
        (lambda x: {"acts": x}, "rows.npz, acts: the name says no layer; call it layer_<L>, or give --layer"),
        (lambda x: {"layer_3": x, HOOK: x}, f"rows.npz, {HOOK}: layer 3 is there twice"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(study, change, message):
    np.savez(ARRAYS, **change(np.load(ARRAYS)[HOOK]))
    refused(study, message, before=Path("params.yaml").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "people"}, "dataset people is in params.yaml already, and not from an import"),
        ({"name": "a/b"}, "dataset 'a/b': a name has letters"),
        ({"rows": "none.csv"}, "none.csv: not found; give a CSV or JSONL file with a label a row"),
        ({"arrays": ["none.npz"]}, "none.npz: not found; give the file with the activations"),
        ({"arrays": ["own.pt"]}, "own.pt: neither .safetensors, .npz nor .npy; save the activations so (a pickle"),
        ({"arrays": ["own.safetensors"]}, "own.safetensors: cannot be read ("),
        ({"arrays": ["own.npz"]}, "own.npz: cannot be read ("),
        ({"n_train": 3}, "3 rows to train or to test: give an even number above 0"),
        ({"n_test": 100}, "dataset own: n_test needs 50 answerable rows"),
        ({"label": "y"}, "bare.csv line 2: no column 'y'; known: id, label"),
        ({"positive": "1"}, "columns: give both `positive` and `negative`"),
        ({"rows": "nothing.csv"}, "nothing.csv: has neither prompts nor ids; add a column `prompt`"),
        ({"rows": "empty.csv"}, "empty.csv: has no rows; give one for each row of the arrays"),
        ({"rows": "twice.csv"}, "dataset own: the id rows.jsonl:7 occurs twice"),
        ({"rows": "one.csv"}, "dataset own: rows.jsonl hold 40 answerable and 0 unanswerable rows"),
        ({"arrays": [ARRAYS, ARRAYS], "layer": 3}, "--layer is for one array, and there are 2"),
    ],
)
def test_what_else_a_person_gets_wrong(study, options, message):
    for name in ("own.pt", "own.safetensors", "own.npz"):
        Path(name).write_bytes(b"no such thing")
    table = pd.read_csv("bare.csv")
    table[["label"]].to_csv("nothing.csv", index=False)
    table.head(0).to_csv("empty.csv", index=False)
    table.assign(id=7).to_csv("twice.csv", index=False)
    table.assign(label=1).to_csv("one.csv", index=False)
    refused(study, message, before=Path("params.yaml").read_text(), **options)


def test_files_that_were_changed_since_are_refused_when_they_are_read(study):
    bring(study)
    path = Path("data/external/own/activations.safetensors")
    stream = safetensors.numpy.load_file(path)["layer_3"]
    for change, message in (
        ({"layer_3": stream[:-1]}, "the shape is [39, 6], and there are 40 rows"),
        ({"layer_3": np.full_like(stream, np.inf)}, "inf in row 0, column 0"),
        ({"layer_3": stream[:, :2].copy()}, "layer 3 has 2 numbers a row, but models/tiny has 6"),
        ({"layer_1": stream}, "has layer_1, no layer_3; import it too"),
    ):
        safetensors.numpy.save_file(change, path)
        with pytest.raises(UserError) as caught:
            checks.check(Study.open().params)
        assert message in str(caught.value)
    path.unlink()
    with pytest.raises(UserError, match="not found; import the activations again"):
        imports.check(Study.open(), "own")


def test_other_templates_have_no_activations(study):
    bring(study)
    params = Study.open().params.model_dump(mode="json")["datasets"]["own"] | {"variations": ["terse"]}
    demo_params.write(PARAMS | {"datasets": PARAMS["datasets"] | {"own": params}})
    with pytest.raises(UserError, match="activations are of one prompt for each row; delete variations"):
        Study.open()
