"""A study is checked before it runs: params, datasets, local configurations, and rows that datasets share."""

import json
import re
import shutil
from pathlib import Path

import pytest

import demo_params
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.demo import generated
from sae_transfer.pipeline import checks
from sae_transfer.pipeline.params import Params


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder in which every file that the demo's params name is there; of the model and SAEs the configurations."""
    folder = tmp_path_factory.mktemp("demo")
    for path, rows in generated.everything(0):
        files.write_text(folder / path, generated.as_jsonl(rows))
    files.write_json(folder / "models/demo/model/config.json", {"num_hidden_layers": 4, "hidden_size": 128})
    for name, sae in demo_params.demo()["saes"].items():
        about = {"d_in": 128, "d_sae": 512, "metadata": {"hook_name": f"model.layers.{sae['layer']}"}}
        files.write_json(folder / f"models/demo/saes/{name}/cfg.json", about)
    return folder


@pytest.fixture
def project(everything, tmp_path, monkeypatch):
    """A copy of that folder, and the params."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return demo_params.demo()


def check(params):
    """What is said beside the cue that the demo has anyhow."""
    told = [notice.sentence for notice in checks.check(demo_params.parsed(params))]
    return [said for said in told if not said.startswith("word overlap")]


def refusal(params):
    """The one line that says what is wrong."""
    demo_params.write(params)
    with pytest.raises(UserError) as caught:
        checks.check(Params.read())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(("params.yaml: ", "dataset "))
    return message


def test_the_demos_params_are_in_order_and_the_cue_that_its_labels_have_is_told(project):
    assert [notice.sentence for notice in checks.check(demo_params.parsed(project))] == [
        "word overlap of question and context: this alone, without a model, tells the label: AUC passages 0.91, "
        "snippets 0.82, yesno 0.78, sums 1.00 (mean of all datasets 0.83); a probe has to beat it."
    ]


def rename(params, *path, to):
    *outer, last = path
    for name in outer:
        params = params[name]
    params[to] = params.pop(last)


def assign(params, *path, value):
    *outer, last = path
    for name in outer:
        params = params[name]
    params[last] = value


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: rename(p, "probe", to="prob"), "unknown key prob; did you mean probe"),
        (lambda p: p["study"]["datasets"].append("pasages"), "study.datasets names pasages.*did you mean passages"),
        (lambda p: p["study"]["saes"].append("narow_3"), "study.saes names narow_3.*did you mean narrow_3"),
        (
            lambda p: assign(p, "model", "layers", value=[2]),
            r"saes.narrow_3 reads layer 3; add it to model.layers \[2\]",
        ),
        (
            lambda p: assign(p, "datasets", "passages", "template", value="defualt"),
            "datasets.passages: template defualt is unknown; did you mean default",
        ),
        (lambda p: assign(p, "datasets", "sums", "n_train", value=7), "datasets.sums.n_train = 7: expected an even"),
        (lambda p: assign(p, "datasets", "sums", "path", value="mine.csv"), "mine.csv: not found; correct it"),
        (
            lambda p: assign(p, "datasets", "sums", "path", value="data/external/squad"),
            "data/external/squad: not found; `sae-transfer data fetch squad` brings it",
        ),
        (lambda p: assign(p, "datasets", "sums", "path", value="data/external/mine"), "mine: not found; correct it"),
        (
            lambda p: assign(p, "model", "name", value="models/other"),
            "models/other: not found; `dvc pull models.dvc`",
        ),
        (
            lambda p: assign(p, "datasets", "sums", "path", value="data/demo/x"),
            "data/demo/x: not found; `dvc pull data.dvc`",
        ),
        (lambda p: assign(p, "verbal", "abstain", value=["no"]), "unknown key verbal.abstain; did you mean abstaining"),
        (
            lambda p: assign(p, "probe", "narow_3", value={"people": {"N": [8]}}),
            "probe.narow_3 names no space; did you mean narrow_3",
        ),
        (
            lambda p: assign(p, "probe", "narrow_3", value={"peple": {"N": [8]}}),
            "probe.narrow_3.peple names no dataset; did you mean people",
        ),
        (
            lambda p: assign(p, "probe", "layer_3", value={"people": {"N": [8]}}),
            "probe.layer_3.people.N: the probes of",
        ),
        (lambda p: p["sweep"].update(C_range=[1.0, 0.1]), "C_range runs from the smaller to the larger, not 1 to 0.1"),
        (lambda p: p["sweep"].update(ranking=[]), "ranking and scaling each need a choice"),
        (
            lambda p: p["sweep"].update(grid=True, C_range=[0.01, 1.0]),
            "leaves out 0.001 of probe.C_grid; widen it",
        ),
        (lambda p: p["sweep"].update(grid=True, scaling=["none"]), "sweep.scaling lacks the grid's rms; add it"),
        (lambda p: p["sweep"].update(grid=True, trials=29), "sweep.trials = 29, but the grid has 30 points; raise it"),
        (
            lambda p: assign(p, "tracking", "url", value="http://127.0.0.1:5000"),
            "unknown key tracking.url; did you mean uri",
        ),
        (
            lambda p: assign(p, "transfer", "resample", value=10),
            "unknown key transfer.resample; did you mean resamples",
        ),
        (
            lambda p: assign(p, "bootstrap", "resamples", value=1),
            "bootstrap.resamples = 1: .*greater than or equal to 2",
        ),
        (
            lambda p: assign(p, "generalization", "few_labels", value=[15]),
            "generalization.few_labels.0 = 15: Input should be a multiple of 2",
        ),
        (
            lambda p: assign(p, "generalization", "good", value=0.9),
            "unknown key generalization.good; did you mean good_auc",
        ),
    ],
)
def test_one_line_names_the_mistake_and_the_remedy(project, spoil, message):
    spoil(project)
    assert re.search(message, refusal(project))


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("study", None, "study = None: Input should be a valid dictionary"),
        ("seed", -1, "seed = -1: Input should be greater than or equal to 0"),
        ("saes", [], r"saes = \[\]: Input should be a valid dictionary"),
    ],
)
def test_a_section_that_is_none_is_named(project, section, value, message):
    assert re.search(message, refusal(project | {section: value}))


@pytest.mark.parametrize("section", ["study", "datasets", "probe", "seed", "tracking"])
def test_a_missing_section_is_named(project, section):
    del project[section]
    assert refusal(project) == f"params.yaml: {section} is missing"


# what only the data, the model's and the SAEs' files tell


def test_a_matched_size_that_a_dataset_cannot_balance_is_told_with_the_largest_that_works(project):
    project["datasets"]["people"]["n_train"] = {"answerable": 119, "unanswerable": 123}
    assert refusal(project).endswith(
        "probe.matched_n_train = 240, but datasets.people.n_train balances 238 rows at most; set it to 238 or less"
    )
    project["probe"]["matched_n_train"] = 238
    assert isinstance(check(project), list)


def test_a_matched_size_that_is_all_of_a_datasets_rows_needs_no_balance(project):
    project["datasets"]["people"]["n_train"] = {"answerable": 117, "unanswerable": 123}
    assert check(project) == []


@pytest.mark.parametrize("n_train", [400, {"answerable": 200, "unanswerable": 40}])
def test_a_quota_that_the_data_do_not_fill_is_told(project, n_train):
    project["datasets"]["people"]["n_train"] = n_train
    assert refusal(project).startswith("dataset people: n_train needs 200 answerable rows, beside the 200 test rows")


def test_a_line_that_no_loader_reads_is_told(project):
    with Path("data/demo/people.jsonl").open("a") as file:
        file.write('{"question": "Who?", "label": 2}\n')
    with pytest.raises(UserError, match=r"people\.jsonl line 481 .*label '2' is neither 0 nor 1"):
        check(project)


def test_a_layer_beyond_the_local_model_is_told(project):
    project["model"]["layers"] = [2, 3, 4]
    assert refusal(project).endswith("model.layers has 4, but models/demo/model has 4 layers, 0 to 3")
    text = {"text_config": {"num_hidden_layers": 4, "hidden_size": 128}}
    Path("models/demo/model/config.json").write_text(json.dumps(text))
    assert refusal(project).endswith("has 4 layers, 0 to 3")
    Path("models/demo/model/config.json").write_text(json.dumps({"n_layer": 5}))  # GPT-2's name for it
    assert check(project) == []


def test_an_sae_path_that_is_not_there_is_told(project):
    project["saes"]["narrow_3"]["path"] = "models/demo/saes/narow_3"
    assert refusal(project).endswith(
        "saes.narrow_3.path = models/demo/saes/narow_3: not found; `dvc pull models.dvc` brings it"
    )
    project["saes"]["narrow_3"]["path"] = "mine/sae"
    assert refusal(project).endswith("saes.narrow_3.path = mine/sae: not found; correct it")


def test_an_sae_on_another_layer_than_its_hook_is_told(project):
    project["saes"]["narrow_3"]["layer"] = 2
    assert refusal(project).endswith("saes.narrow_3.layer = 2, but its hook is model.layers.3; set it to 3")
    path = Path("models/demo/saes/narrow_3/cfg.json")
    path.write_text(path.read_text().replace("model.layers.3", "blocks.3.hook_resid_pre"))  # the output of layer 2
    assert check(project) == []


def test_an_sae_of_another_width_is_told(project):
    path = Path("models/demo/saes/wide_3/cfg.json")
    path.write_text(path.read_text().replace("128", "64"))
    assert "saes.wide_3: d_in is 64, but models/demo/model has 128 numbers a token" in refusal(project)


def test_a_study_without_datasets_is_told(project):
    project["study"]["datasets"] = []
    assert refusal(project) == "params.yaml: study.datasets is empty; name at least one dataset"


@pytest.mark.parametrize("names", [None, "passages", 5, {"passages": 1}])
def test_names_that_are_no_list_are_told(project, names):
    project["study"]["datasets"] = names
    assert refusal(project).startswith("params.yaml: study.datasets")


def test_a_study_without_saes_is_one(project):
    project["study"] |= {"saes": []}
    assert check(project) == []


def test_a_name_that_is_listed_twice_is_told(project):
    project["study"]["datasets"].append("people")
    assert refusal(project) == "params.yaml: study.datasets names people twice; delete one"


# names


def renamed(params, section, old, new):
    params[section][new] = params[section].pop(old)
    params["study"][section] = [new if name == old else name for name in params["study"][section]]


WRONG = ["../x", "a/b", "a; touch x", "a b", "", ".hidden", "-x", "a..b", "$(x)", "ü"]
TAKEN = ["layer_20", "LAYER_3", "text", "verbal", "mean", "all", "residual", "manifest"]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(("section", "old", "what"), [("saes", "narrow_3", "SAE"), ("datasets", "people", "dataset")])
def test_a_name_that_makes_no_file_name_is_refused(project, section, old, what, name):
    renamed(project, section, old, name)
    assert refusal(project).startswith(f"params.yaml: {what} {name!r}: a name has letters (a to z, A to Z)")


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize(("section", "old", "what"), [("saes", "narrow_3", "SAE"), ("datasets", "people", "dataset")])
def test_a_name_that_has_a_meaning_of_its_own_is_refused(project, section, old, what, name):
    renamed(project, section, old, name)
    said = f"params.yaml: {what} {name!r}: this word has a meaning of its own here; choose another name"
    assert refusal(project) == said


@pytest.mark.parametrize("name", [2024, 2.5, True, "v1.5", "gemma-2.5", "layers", "layer_x", "_a"])
def test_a_name_that_yaml_reads_as_a_number_is_a_name(project, name):
    renamed(project, "datasets", "people", name)
    renamed(project, "saes", "narrow_3", name)
    project["probe"][name] = {name: {"N": [8]}}
    demo_params.write(project)
    params = Params.read()
    assert str(name) in params.study.datasets
    assert str(name) in [space.name for space in params.sae_spaces]
    assert params.probe.at(str(name), str(name)).N == (8,)
    assert len(checks.check(params)) == 1


@pytest.mark.parametrize(("section", "name"), [("saes", "Narrow_3"), ("datasets", "PEOPLE")])
def test_names_that_differ_in_capitals_alone_are_refused(project, section, name):
    project[section][name] = project[section][{"saes": "narrow_3", "datasets": "people"}[section]]
    assert "is the same file name on many machines" in refusal(project)


@pytest.mark.parametrize("name", ["N", "top_k", "overrides"])
def test_an_sae_named_as_a_setting_of_the_probes_is_refused(project, name):
    renamed(project, "saes", "narrow_3", name)
    assert refusal(project) == f"params.yaml: SAE {name!r}: probe.{name} is a setting; choose another name"


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ""])
def test_an_experiment_that_names_a_place_in_mlruns_is_refused(project, name):
    project["tracking"]["experiment"] = name
    assert refusal(project).startswith(f"params.yaml: tracking.experiment {name!r}: a name has letters")
    project["tracking"]["uri"] = "http://127.0.0.1:9"  # a server takes what it takes
    assert check(project) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0b", "n" * 300])
def test_a_model_where_nothing_can_lie_is_refused(project, name):
    project["model"]["name"] = name
    assert re.search(
        "model.name = .*(the whole project or a folder around it|no file can have this name)", refusal(project)
    )


@pytest.mark.parametrize("section", ["saes", "datasets"])
def test_null_is_no_name(project, section):
    project[section][None] = next(iter(project[section].values()))
    assert refusal(project) == f"params.yaml: {section}: a name is null; put quotes around it"


# rows that datasets share


def spelt(path, target, change):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    Path(target).write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


def louder(row):
    return row | {name: f" {row[name].upper()}  " for name in ("context", "question")}


@pytest.mark.parametrize("change", [lambda row: row, louder])
def test_one_dataset_under_two_names_is_told_both_ways(project, change):
    spelt("data/demo/people.jsonl", "people.jsonl", change)
    project["datasets"]["again"] = project["datasets"]["people"] | {"path": "people.jsonl"}
    project["study"]["datasets"] = ["sums", "people", "again"]
    share, *notes = check(project)
    assert share == "people and again share rows: 480 of the 480 rows of again stand in people too."
    told = [
        re.fullmatch(r"(\d+) of 200 test rows of (\w+) stand among (\w+)'s training rows: (.*)\.", n) for n in notes
    ]
    assert [match.groups()[1:] for match in told] == [
        ("again", "people", "left out of people to again"),
        ("people", "again", "left out of again to people"),
    ]
    assert all(50 < int(match[1]) < 150 for match in told)  # about half of the rows, which are drawn by name
    assert set(notes) < {notice.sentence for notice in checks.notes(demo_params.parsed(project))}


def test_datasets_that_share_a_context_alone_share_no_row(project):
    spelt("data/demo/people.jsonl", "people.jsonl", lambda row: row | {"question": f"Indeed, {row['question']}"})
    project["datasets"]["again"] = project["datasets"]["people"] | {"path": "people.jsonl"}
    project["study"]["datasets"] = ["people", "again"]
    assert check(project) == []


def test_a_test_set_of_few_groups_is_told_before_it_runs(project):
    project["study"]["datasets"] = ["people"]
    project["datasets"]["people"]["n_test"] = 8
    (told,) = check(project)
    assert re.fullmatch(
        r"The test rows of people are worth \d\.\d groups, fewer than 10: nothing there has an interval\.", told
    )
