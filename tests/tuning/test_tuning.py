"""Sweeps on planted data: what is maximised, what is chosen, and what happens to a study that is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import log_loss

import demo_params
from planted import QUICK, SHARED, SPURIOUS, sae_domain
from sae_transfer.artifacts import activations, features
from sae_transfer.artifacts.features import Decoder, Directions, Health
from sae_transfer.core import paths
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.core.space import sae_features
from sae_transfer.pipeline.fit import fit_item
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study import Study
from sae_transfer.probing import probe_files, sae_probes, scoring
from sae_transfer.probing.evaluations import bootstrapped_auc
from sae_transfer.stats import intervals, roc
from sae_transfer.tuning import apply, objective, optuna_studies, sweep, trials
from sae_transfer.tuning.search_space import Choice, SweepParams
from sae_transfer.tuning.storage import open_storage
from sae_transfer.tuning.sweep import Plan
from sae_transfer.tuning.trials import Sweep, Trial

ROOT = Path(__file__).parents[2]
RULES, SCALINGS = ("auc", "mean_difference"), ("rms", "standard", "none")
PLANTED = {"alpha": {SHARED: (0.3, 0.6), SPURIOUS: (0.2, 0.6)}, "beta": {SHARED: (0.3, 0.6), SPURIOUS: (0.4, 0.4)}}
PARAMS = demo_params.demo(
    study={"datasets": ["alpha", "beta"], "saes": ["small", "other"]},
    model={"name": "models/demo/model", "layers": [2]},
    saes={name: {"layer": 2, "path": f"models/demo/saes/{name}"} for name in ("small", "other")},
    datasets={
        name: {"loader": "table", "path": f"data/demo/{name}.jsonl", "n_train": 120, "n_test": 60} for name in PLANTED
    },
    probe={"n_folds": 3, "C_grid": [0.01, 1.0], "N": [2, 8], "top_k": 2, "repeats": 2, "matched_n_train": 120},
    transfer={"resamples": 50, "whole": False},
    tracking={},
    sweep={"n_max": 16, "trials": 14, "C_range": [0.001, 10.0]},
)
SMALL = sae_features("small", 2)


def write_features(sae, dataset, X):
    X = sparse.csr_array(X).astype(np.float32)
    features.write(paths.FEATURES / sae / f"{dataset}.safetensors", X, Health(X.shape[1], 1.0, 0.9, 0.0), {})
    ids, vectors = np.arange(X.shape[1]), np.eye(X.shape[1], 12, dtype=np.float32)
    decoder = Decoder(ids, vectors, np.zeros(12, dtype=np.float32))
    directions = Directions(ids, vectors, vectors, "standard")
    features.write_directions(paths.FEATURES / f"{sae}.directions.safetensors", directions, decoder)


def write_activations(dataset, stream):
    ids = [f"default/{i}" for i in range(len(stream))]
    activations.write(paths.ACTIVATIONS / f"layer_2/{dataset}.0.safetensors", stream.astype(np.float32), ids, {})


def write_prompts(dataset, labels):
    path = paths.PROMPTS / f"{dataset}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    columns = {"id": [str(i) for i in range(n)], "group": [f"g{i // 2}" for i in range(n)], "label": labels}
    columns |= {"split": ["train"] * 120 + ["test"] * (n - 120), "variation": "default", "prompt": "x"}
    columns |= {"context": dataset, "question": columns["id"]}
    pd.DataFrame(columns).to_parquet(path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two SAEs on two datasets: 120 training and 60 test rows, and params.yaml."""
    monkeypatch.chdir(tmp_path)
    demo_params.write(PARAMS)
    for i, (dataset, planted) in enumerate(PLANTED.items()):
        for j, sae in enumerate(PARAMS["saes"]):
            domain = sae_domain(i, n=180, d=60, planted=planted)
            mixed = domain.X if j == 0 else domain.X[:, np.random.default_rng(7).permutation(60)]
            write_features(sae, dataset, mixed)
        write_prompts(dataset, domain.labels)
        write_activations(dataset, domain.X.toarray()[:, :12])
    return tmp_path


def plan(study="s", pairs=(("small", "alpha"),), **changes):
    params = demo_params.parsed({**PARAMS, "sweep": PARAMS["sweep"] | changes})
    return Plan(Study(params), study, tuple(pairs))


def swept(*args, jobs=1, tick=lambda *news: None, **changes):
    return sweep.sweep(plan(*args, **changes), jobs, tick)


def tried(found):
    """What a sweep's complete trials tried and got, in their order."""
    return [(trial.params, trial.value, trial.log_loss) for trial in found.complete]


# the objective


@pytest.fixture(scope="module")
def train():
    return sae_domain(3, planted=PLANTED["alpha"])


@pytest.mark.parametrize(("rule", "scaling"), product(RULES, SCALINGS))
def test_the_objective_is_the_cross_validation_of_the_n_sparse_probe(train, rule, scaling):
    params = QUICK.model_copy(update={"ranking": rule, "scaling": scaling})
    scores = [sae_probes._scores(rest, test, 0, params, [2, 8], [0.01, 1.0]) for rest, test in train.folded(3, 0)]
    folds = objective.folds(train, 0, QUICK, RULES, 32)
    found = [[objective.cross_validated(folds, Choice(C, n, rule, scaling)) for C in (0.01, 1.0)] for n in (2, 8)]
    for name in ("auc", "log_loss"):
        expected = np.mean([getattr(score, name) for score in scores], axis=0)
        np.testing.assert_allclose([[getattr(each, name) for each in row] for row in found], expected, atol=1e-7)


def test_the_log_loss_is_scikit_learns_mean_over_the_folds(train):
    folds, choice = objective.folds(train, 0, QUICK, ("auc",), 8), Choice(0.1, 8, "auc", "rms")
    losses = []
    for rest, test in train.folded(3, 0):
        probe = objective.trained(rest, 0, QUICK, choice)
        losses.append(log_loss(test.labels, probe.probability(probe.score(test.X))))
    assert objective.cross_validated(folds, choice).log_loss == pytest.approx(np.mean(losses), abs=1e-7)


def test_the_best_of_the_grid_is_what_the_fit_stage_chooses(train):
    folds = objective.folds(train, 0, QUICK, ("auc",), 32)
    grid = [Choice(C, n, "auc", "rms") for n in QUICK.N for C in QUICK.C_grid]
    goal = QUICK.selection
    values = [objective.cross_validated(folds, choice).of(goal) for choice in grid]
    every = tuple(Trial(i, "complete", vars(grid[i]), value, {}) for i, value in enumerate(values))
    best = trials.winner(Sweep("s", "small", "alpha", {"objective": goal}, every)).choice
    assert objective.untuned(folds, QUICK)[0] == best
    fitted = next(p for p in sae_probes.sparse_probes(train, 0, QUICK) if p.kind == "sparse_n" and p.selected)
    again = objective.trained(train, 0, QUICK, best)
    assert (len(fitted.weights), fitted.C) == (best.N, best.C)
    np.testing.assert_array_equal(fitted.weights, again.weights)
    np.testing.assert_array_equal(fitted.feature_ids, again.feature_ids)


def test_no_choice_makes_noise_look_predictive():
    """Ranked inside the folds; ranked outside, 5,000 features of noise reach 0.84."""
    noise = sae_domain(0, d=2000, density=0.05)
    folds = objective.folds(noise, 0, QUICK, RULES, 32)
    choices = [Choice(C, n, rule, "rms") for C in (0.01, 1.0) for n in (1, 8, 32) for rule in RULES]
    areas = [objective.cross_validated(folds, choice).auc for choice in choices]
    assert abs(np.mean(areas) - 0.5) < 0.12


def test_rankings_are_made_once_a_fold_and_rule_whatever_the_number_of_trials(project, monkeypatch):
    calls = []
    monkeypatch.setattr(
        objective, "ranked", lambda *args, rank=sae_probes.ranked: calls.append(len(args[0])) or rank(*args)
    )
    swept(trials=14)
    assert len([n for n in calls if n < 120]) == 3 * len(RULES)
    assert len([n for n in calls if n == 120]) == 2  # the chosen probe and the untuned one on all training rows


def test_an_sae_that_never_fires_is_a_users_error():
    with pytest.raises(UserError, match="no feature fires on 10 of 160 training rows"):
        objective.folds(sae_domain(0, density=0.0), 0, QUICK, RULES, 8)


# what is chosen


def sweep_of(*points, mode="best", objective="auc"):
    trials = [
        Trial(i, "complete", {"C": C, "N": n, "ranking": "auc", "scaling": "rms"}, area, {})
        for i, (area, n, C) in enumerate(points)
    ]
    lost = Trial(len(trials), "fail", {"C": 1.0}, None, {})
    return Sweep("s", "small", "alpha", {"mode": mode, "objective": objective}, (*trials, lost))


def test_the_winner_has_the_best_objective_and_is_the_first_of_equals():
    points = ((0.8, 2, 1.0), (0.9, 8, 1.0), (0.9, 4, 5.0), (0.9004, 16, 0.1), (0.9004, 1, 0.1))
    found = sweep_of(*points)
    assert trials.winner(found).number == 3
    assert trials.ties(found, trials.winner(found)) == 3
    assert trials.winner(found, n_max=8).number == 4
    assert trials.winner(sweep_of(*points, objective="log_loss")).number == 0
    assert trials.winner(found, n_max=3).number == 4
    assert trials.chosen(found) == [trials.winner(found)]
    with pytest.raises(UserError, match="no complete trial of small/alpha with at most 1 features"):
        trials.winner(sweep_of(*points[:4]), n_max=1)


@pytest.mark.parametrize("goal", ["auc", "log_loss"])
def test_the_winner_is_what_optuna_and_its_dashboard_call_the_best_trial(project, goal):
    params = demo_params.parsed({**PARAMS, "probe": {**PARAMS["probe"], "selection": goal}})
    sweep_params = params.sweep.model_copy(update={"trials": 20})
    of = Study(params.model_copy(update={"sweep": sweep_params}))
    (found,) = sweep.sweep(Plan(of, "s", (("small", "alpha"),)), 1, lambda *news: None)
    storage = open_storage("studies", "s", create=False)
    study = optuna.load_study(study_name="s/small/alpha", storage=storage)
    best = trials.winner(found)
    assert study.best_trial.number == best.number
    assert (study.metric_names, study.best_value) == ([objective.NAMES[goal]], getattr(best, goal))
    assert [trial.params for trial in study.trials] == [trial.params for trial in found.trials]
    tried = [trial.params["C"] for trial in found.trials]
    assert [float(f"{C:.3g}") for C in tried] == tried  # what is shown is what was tried
    folds = objective.folds(Study.open().rows(SMALL, "alpha"), 0, QUICK, RULES, 16)
    again = objective.cross_validated(folds, best.choice)
    assert (again.auc, again.log_loss) == (best.auc, best.log_loss)
    note = "".join(map(str, storage.get_study_system_attrs(study._study_id).values()))
    assert f"| trial {best.number} | {best.params['N']} | {best.params['C']:g} |" in note
    assert f"{trials.ties(found, best)} of 19 other trials come within 0.001" in note


def test_the_untuned_probe_is_the_fit_stages_and_stands_beside_the_winner(project):
    (found,) = swept(trials=4)
    (row,) = trials.table([found]).to_dict("records")
    study = Study.open()
    fitted = sae_probes.sparse_probes(study.rows(SMALL, "alpha"), 0, study.params.probe)
    probe = next(probe for probe in fitted if probe.kind == "sparse_n" and probe.selected)
    assert (row["untuned.N"], row["untuned.C"]) == (len(probe.weights), probe.C)
    for name, test in (("in_domain", "alpha"), ("ood", "beta")):
        unseen = study.rows(SMALL, test, "test")
        assert row[f"untuned.auc_{name}"] == roc.auc(probe.score(unseen.X), unseen.labels)
    best = trials.winner(found)
    assert (row["trial"], row["N"], row["trials"]) == (best.number, best.params["N"], 4)
    assert (row["auc_in_domain"], row["auc_ood"]) == (best.attributes["auc.alpha"], best.attributes["auc.beta"])


def test_a_finished_sweep_ranks_no_features_again(project, monkeypatch):
    before = swept(trials=3)
    with monkeypatch.context() as patch:
        patch.setattr(objective, "folds", None)
        assert swept(trials=3) == before
    table = pd.read_parquet("artifacts/prompts/beta.parquet")
    test = (table["split"] == "test").to_numpy()
    table.loc[test, "label"] = 1 - table.loc[test, "label"]
    table.to_parquet("artifacts/prompts/beta.parquet")
    (old,), (new,) = before, swept(trials=3)  # other test rows are scored anew
    was, now = (trials.winner(each).attributes["auc.beta"] for each in (old, new))
    assert (was, tried(old)) == (pytest.approx(1 - now), tried(new))


def test_a_sweep_that_was_killed_before_its_winner_was_scored_scores_it(project, monkeypatch):
    swept(trials=2)

    def killed(*words):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna_studies, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            swept(trials=14)
    (found,) = swept(trials=14)
    assert {trial.number for trial in found.trials if trial.attributes} == {trials.winner(found).number}


def test_the_front_is_what_optuna_calls_best_without_repeated_points():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 60)
    points = [(round(float(0.5 + 0.02 * n + 0.1 * rng.random()), 2), int(n), 1.0) for n in sizes]
    study = optuna.create_study(directions=["maximize", "minimize"])
    for area, n, C in points:
        distributions = {"C": optuna.distributions.FloatDistribution(1.0, 1.0)}
        study.add_trial(optuna.create_trial(params={"C": C}, distributions=distributions, values=[area, n]))
    expected = sorted({tuple(trial.values) for trial in study.best_trials}, key=lambda point: point[1])
    found = trials.chosen(sweep_of(*points, mode="pareto"))
    assert [(trial.value, trial.params["N"]) for trial in found] == expected
    assert len(expected) > 2


def test_a_sweep_finds_the_planted_features_and_stays_under_its_budget(project):
    (found,) = swept(trials=30, n_max=4)
    best = trials.winner(found)
    assert max(trial.params["N"] for trial in found.complete) <= 4
    assert best.auc > 0.7
    assert best.value == best.log_loss == min(trial.log_loss for trial in found.complete)
    fitted = objective.trained(Study.open().rows(SMALL, "alpha"), 0, QUICK, best.choice)
    assert {SHARED, SPURIOUS} & set(fitted.feature_ids.tolist())


def test_the_two_objectives_give_a_front_whose_every_point_is_worth_its_features(project):
    (found,) = swept(mode="pareto", trials=30)
    front = sorted((trial for trial in found.trials if trial.attributes), key=lambda trial: trial.params["N"])
    assert len(front) > 1
    sizes, losses = [t.params["N"] for t in front], [t.value for t in front]
    assert sizes == sorted(set(sizes))
    assert losses == sorted(set(losses), reverse=True)
    assert min(losses) == min(trial.value for trial in found.complete)


def test_the_grid_is_covered_exactly_once_before_anything_else(project):
    (found,) = swept(grid=True, trials=8)
    grid = [
        {"C": C, "N": n, "ranking": "auc", "scaling": "rms"}
        for n in PARAMS["probe"]["N"]
        for C in PARAMS["probe"]["C_grid"]
    ]
    assert [trial.params for trial in found.complete[:4]] == grid
    assert len(found.complete) == 8
    (again,) = swept(grid=True, trials=10)
    assert len([trial for trial in again.complete if trial.params in grid]) == 4


def test_the_chosen_trial_has_its_area_on_every_test_set_with_an_interval_and_no_other_trial_has(project):
    (found,) = swept()
    best = trials.winner(found)
    assert {trial.number for trial in found.trials if trial.attributes} == {best.number}
    for name in ("alpha", "beta"):
        low, area, high = (best.attributes[f"{part}.{name}"] for part in ("auc_low", "auc", "auc_high"))
        assert low <= area <= high
    training = Study.open().rows(SMALL, "alpha")
    params = QUICK.model_copy(update={"n_folds": 3})
    probe = objective.trained(training, 0, params, best.choice)
    unseen = Study.open().rows(SMALL, "beta", "test")
    assert best.attributes["auc.beta"] == roc.auc(probe.score(unseen.X), unseen.labels)


def test_the_interval_of_a_chosen_trial_is_the_transfer_tables_which_counts_effective_groups(project):
    """Where one label stands in few groups, as many groups as there are would promise too much."""
    path = paths.PROMPTS / "beta.parquet"
    table = pd.read_parquet(path)
    for label, size in ((1, 12), (0, 99)):
        rows = table.index[(table["split"] == "test") & (table["label"] == label)]
        table.loc[rows, "group"] = [f"{label} {i % size}" for i in range(len(rows))]
    table.to_parquet(path)
    (found,) = swept()
    study, best = Study.open(), trials.winner(found)
    test, probe = study.evaluation("beta"), objective.trained(study.rows(SMALL, "alpha"), 0, QUICK, best.choice)
    row = scoring.cell(probe, probe.score(study.rows(SMALL, "beta", "test").X), test, None)
    bounds = [best.attributes[f"{part}.beta"] for part in ("auc_low", "auc_high")]
    assert bounds == [row["auc_low"], row["auc_high"]]
    own = bootstrapped_auc(probe.score(study.rows(SMALL, "beta", "test").X), test)
    by_all_groups = intervals.interval(own.auc, own.resampled, test.n_groups)
    assert test.effective_groups < test.n_groups - 5
    assert bounds != [by_all_groups.low, by_all_groups.high]


def test_too_few_effective_groups_leave_the_reason_in_place_of_an_interval(project):
    path = paths.PROMPTS / "beta.parquet"
    table = pd.read_parquet(path)
    table.loc[table["split"] == "test", "group"] = [f"g{i % 6}" for i in range(60)]
    table.to_parquet(path)
    (found,) = swept(trials=2)
    told = trials.winner(found).attributes
    assert {"auc.beta", "reason.beta"} <= told.keys()
    assert "auc_low.beta" not in told
    assert "reason.alpha" not in told


def test_permuting_every_test_label_leaves_the_sweep_as_it_was(project):
    before = swept("one", pairs=[("small", "alpha"), ("small", "beta")], mode="pareto")
    for dataset in PLANTED:
        table = pd.read_parquet(f"artifacts/prompts/{dataset}.parquet")
        test = (table["split"] == "test").to_numpy()
        table.loc[test, "label"] = np.random.default_rng(1).permutation(table["label"][test])
        table.to_parquet(f"artifacts/prompts/{dataset}.parquet")
    # Another folder, the same name: the name seeds the sampler.
    after = swept("one", pairs=[("small", "alpha"), ("small", "beta")], mode="pareto", storage="elsewhere")
    for one, other in zip(before, after, strict=True):
        assert tried(one) == tried(other)
        assert one.params == other.params
        numbers = [[trial.number for trial in each.trials if trial.attributes] for each in (one, other)]
        assert numbers[0] == numbers[1]
        assert [t.attributes for t in one.trials] != [t.attributes for t in other.trials]  # or the test is idle


def test_a_changed_training_row_is_refused(project):
    swept()
    table = pd.read_parquet("artifacts/prompts/alpha.parquet")
    table.loc[[0, 1], "label"] = table.loc[[1, 0], "label"].to_numpy() ^ (table["label"][0] == table["label"][1])
    table.to_parquet("artifacts/prompts/alpha.parquet")
    with pytest.raises(UserError, match=r"sweep s/small/alpha: made with another search space \(rows = "):
        swept()


# storage, processes, interruptions


def test_more_trials_go_on_where_fewer_stopped(project):
    (whole,) = swept("s", storage="whole")
    swept("s", trials=5)
    (resumed,) = swept("s")
    assert resumed == whole


def test_running_again_writes_nothing(project):
    swept()
    before = Path("studies/s.journal").read_bytes()
    swept()
    assert Path("studies/s.journal").read_bytes() == before


def test_the_result_does_not_depend_on_the_number_of_processes(project):
    pairs = list(product(("small", "other"), PLANTED))
    seen = []
    one = swept("s", pairs, storage="one")
    two = swept("s", pairs, storage="two", jobs=2, tick=lambda *news: seen.append(news))
    assert one == two
    assert sum(done for _, _, done in seen) == 4 * PARAMS["sweep"]["trials"]
    assert {name for name, _, _ in seen} == {f"s/{space}/{train}" for space, train in pairs}


def test_any_optuna_url_holds_the_same_study(project):
    (journal,) = swept(trials=4)
    (database,) = swept(storage="sqlite:///sweeps.db", trials=4)
    assert database == journal
    assert optuna_studies.records("sqlite:///sweeps.db", "s") == [database]
    with pytest.raises(UserError, match=r"sweep t: not in sqlite:///sweeps\.db \(known: s\)"):
        optuna_studies.records("sqlite:///sweeps.db", "t")


SWEEP = "import sys; from sae_transfer.cli import main; main()"


def started(*words):
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SWEEP, "sweep", "--name", "s", "--no-track", *words]
    return subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed_in_the_middle(process, lines):
    """Kills -9 as soon as the journal has so many lines; True if the sweep was not over by then."""
    path = Path("studies/s.journal")
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("mode", ["best", "pareto"])
def test_a_sweep_that_was_killed_twice_goes_on_as_if_it_had_not_been(project, mode):
    params = {**PARAMS, "sweep": PARAMS["sweep"] | {"mode": mode, "trials": 40, "grid": True}}
    demo_params.write(params)
    (whole,) = swept("s", storage="whole", mode=mode, trials=40, grid=True)
    for lines in (50, 150) if mode == "best" else (100,):
        assert killed_in_the_middle(started("--sae", "small", "--train", "alpha"), lines)
        assert len(optuna_studies.records("studies", "s")[0].complete) < 40
    # What a kill in the middle of a trial leaves: one that asked and never told.
    storage = open_storage("studies", "s", create=False)
    optuna.load_study(study_name="s/small/alpha", storage=storage).ask()
    (resumed,) = swept("s", mode=mode, trials=40, grid=True)
    assert {trial.state for trial in resumed.trials} == {"complete", "fail"}  # no zombie runs on
    assert tried(resumed) == tried(whole)
    assert [t.attributes for t in resumed.complete] == [t.attributes for t in whole.complete]
    assert len({json.dumps(t.params) for t in resumed.complete}) > 35  # start-up trials are not repeated


def test_workers_end_with_their_killed_parent_and_another_run_finishes_their_work(project):
    demo_params.write({**PARAMS, "sweep": PARAMS["sweep"] | {"trials": 40}})
    assert killed_in_the_middle(started("--sae", "small", "--jobs", "2"), 50)
    process = started("--sae", "small", "--jobs", "2", "--json", "-q")
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert [len([t for t in each["trials"] if t["state"] == "complete"]) for each in json.loads(out)] == [40] * 2
    whole = swept("s", [("small", name) for name in PLANTED], storage="whole", trials=40)
    assert [tried(each) for each in optuna_studies.records("studies", "s")] == [tried(each) for each in whole]


def test_a_study_that_another_process_sweeps_is_left_alone(project, monkeypatch):
    monkeypatch.setattr(sweep, "PATIENCE", 0.3)
    with sweep._alone("s"), pytest.raises(UserError, match="sweep s: another process sweeps it; wait for it"):
        swept()
    swept("t", trials=1)
    swept(trials=1)  # the lock is free again


def test_while_workers_work_nobody_else_gets_the_study(project, monkeypatch):
    monkeypatch.setattr(sweep, "PATIENCE", 0.0)
    refused = []

    def try_too(*news):
        with pytest.raises(UserError, match="another process sweeps it"), sweep._alone("s"):
            pass
        refused.append(news)

    swept("s", [("small", "alpha"), ("small", "beta")], jobs=2, tick=try_too, trials=3)
    assert len(refused) == 6


def test_a_worker_whose_parent_was_killed_before_it_began_does_nothing(project):
    Path("studies").mkdir()
    before = signal.getsignal(signal.SIGINT)
    sweep._work(plan(), plan().pairs, None, parent=-1)
    signal.signal(signal.SIGINT, before)
    assert [path.name for path in Path("studies").iterdir()] == ["s.lock"]


def test_a_worker_that_dies_is_told_and_nothing_is_lost(project, monkeypatch):
    pairs = list(product(("small", "other"), PLANTED))

    def kill_a_worker(name, area, done):
        import multiprocessing

        for child in multiprocessing.active_children()[:1]:
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(UserError, match=r"sweep s: a worker stopped \(exit code -9\); run it again to go on"):
        swept("s", pairs, jobs=2, tick=kill_a_worker)
    assert [len(each.complete) for each in swept("s", pairs)] == [14] * 4


def test_a_workers_mistake_is_one_line(project):
    Path("artifacts/features/small/beta.safetensors").unlink()
    with pytest.raises(UserError, match=r"artifacts/features/small/beta\.safetensors: not found"):
        swept("s", list(product(("small", "other"), PLANTED)), jobs=2)


# bad input


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_max": 8}, r"n_max = 16 there, 8 now"),
        ({"C_range": [0.01, 1.0]}, r"C = \[0.001, 10.0\] there, \[0.01, 1.0\] now"),
        ({"scaling": ["rms"]}, r"scaling = \['rms', 'standard', 'none'\] there, \['rms'\] now"),
        ({"mode": "pareto"}, r"mode = best there, pareto now"),
    ],
)
def test_a_journal_from_another_search_space_is_refused_and_kept(project, change, said):
    swept(trials=2)
    before = Path("studies/s.journal").read_bytes()
    with pytest.raises(UserError, match=said) as caught:
        swept(trials=2, **change)
    assert "choose another name" in str(caught.value)
    assert Path("studies/s.journal").read_bytes() == before


def spoil_tail(text):
    return text[:-20]


def spoil_middle(text):
    lines = text.splitlines(keepends=True)
    return b"".join([*lines[:5], b'{"op_code": 4, "tri\n', *lines[6:]])


def spoil_head(text):
    return text.split(b"\n", 1)[1]


def without(text, part):
    """The journal without the first line that holds `part`."""
    lines = text.splitlines(keepends=True)
    lines.remove(next(line for line in lines if part in line))
    return b"".join(lines)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_tail, r"s\.journal line \d+: corrupt; it was left as it is"),
        (spoil_middle, r"s\.journal line 6: corrupt"),
        (lambda text: b"\x00\xff" + text, r"s\.journal line 1: corrupt"),
        (lambda text: b"[]\n" + text, r"s\.journal line 1: corrupt"),
        (lambda text: b"{}\n" + text, r"s\.journal line 1: corrupt"),
        (spoil_head, r"s\.journal line 1: corrupt"),
        (lambda text: without(text, b'"op_code":4'), r"s\.journal line \d+: corrupt"),
        (lambda text: without(text, b'"param_name":"C"'), "sweep s/small/alpha: trial 0 lost its C; restore"),
        (lambda text: text.replace(b'"op_code":0', b'"op_code":"x"', 1), "corrupt|cannot use it"),
    ],
)
def test_a_corrupt_journal_is_refused_and_not_repaired(project, spoil, said):
    swept(trials=2)
    path = Path("studies/s.journal")
    path.write_bytes(spoil(path.read_bytes()))
    before = path.read_bytes()
    for call in (lambda: swept(trials=4), lambda: optuna_studies.records("studies", "s")):
        with pytest.raises(UserError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:JournalRedisBackend is experimental")
def test_a_study_or_storage_that_is_not_there_is_one_line(project):
    swept(trials=1)
    with pytest.raises(UserError, match=r"sweep r: not in studies \(known: s\); `make sweep SWEEP=r` starts it"):
        optuna_studies.records("studies", "r")
    with pytest.raises(UserError, match=r"sweep .\.\./s.: a name has letters"):
        swept("../s")
    for storage in ("sqlite:////nosuch/folder/x.db", "nosuch://x", "redis://127.0.0.1:1"):
        with pytest.raises(UserError, match=storage) as caught:
            swept(storage=storage)
        assert "\n" not in str(caught.value)


def test_a_name_that_the_study_does_not_have_is_told_the_closest():
    study = Study(demo_params.parsed(PARAMS))
    with pytest.raises(UserError, match="smal is not in the study; did you mean small"):
        sweep.pairs(study, ["smal"])
    assert sweep.pairs(study, (), ["beta"]) == (("small", "beta"), ("other", "beta"))


def test_a_range_of_c_runs_upwards():
    with pytest.raises(UserError, match=r"^sweep: C_range runs from the smaller to the larger"):
        parse(SweepParams, {"C_range": [1.0, 0.1]}, "sweep")


# winners into params.yaml


def test_applying_adds_lines_and_changes_none_of_the_others(tmp_path):
    path = tmp_path / "params.yaml"
    before = (ROOT / "presets/demo.yaml").read_text()
    path.write_text(before)
    winners = {("narrow_3", "people"): Choice(1e-5, 8, "auc", "none"), ("wide_3", "sums"): Choice(20.0, 1, *"ab")}
    winners["wide_3", "sums"] = Choice(20.0, 1, "mean_difference", "rms")
    apply.apply(path, winners)
    added = [
        "  narrow_3:",
        "    people: {C_grid: [1.0e-05], N: [8], ranking: auc, scaling: none}",
        "  wide_3:",
        "    sums: {C_grid: [20.0], N: [1], ranking: mean_difference, scaling: rms}",
    ]
    lines = path.read_text().splitlines()
    assert [line for line in lines if line not in added] == before.splitlines()
    at = lines.index(added[0])
    assert lines[at : at + 4] == added
    assert lines[at - 1].startswith("  matched_n_train")
    assert Params.read(path).probe.at("narrow_3", "people").C_grid == (1e-5,)


def test_applying_again_replaces_what_was_applied(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("probe:\n  N: [1, 2]   # sizes\n\n# the rest\nseed: 0\n")
    apply.apply(path, {("a", "x"): Choice(0.5, 8, "auc", "rms")})
    apply.apply(path, {("a", "x"): Choice(0.25, 4, "auc", "rms"), ("a", "y"): Choice(0.5, 2, "auc", "none")})
    assert path.read_text() == (
        "probe:\n  N: [1, 2]   # sizes\n  a:\n    x: {C_grid: [0.25], N: [4], ranking: auc, scaling: rms}\n"
        "    y: {C_grid: [0.5], N: [2], ranking: auc, scaling: none}\n\n# the rest\nseed: 0\n"
    )


def test_the_fit_stage_uses_the_winner(project):
    found = swept(trials=25, n_max=6)
    best = trials.winner(found[0]).choice
    apply.apply(Path("params.yaml"), apply.winners(found, None))
    study = Study.open()
    (path,) = fit_item(study, SMALL, "alpha")
    (probe,) = [p for p in probe_files.read(path) if p.kind == "sparse_n"]
    assert Choice(probe.C, len(probe.weights), probe.ranking, probe.scaling) == best
    expected = objective.trained(study.rows(SMALL, "alpha"), 0, QUICK.model_copy(update={"n_folds": 3}), best)
    np.testing.assert_array_equal(probe.weights, expected.weights)
    (path,) = fit_item(study, SMALL, "beta")  # which nobody tuned
    assert [len(p.weights) for p in probe_files.read(path) if p.kind == "sparse_n"] == PARAMS["probe"]["N"]


def test_applying_tells_the_rows_that_will_change():
    probes = pd.DataFrame({"sae": ["a", "a", "a", "b"], "train": ["x", "y", "x", "x"]})
    tables = {
        "transfer": probes.assign(family=["sparse_n", "sparse_n", "sparse_1", "sparse_n"]),
        "saes": pd.DataFrame({"sae": ["a", "b"], "probe": "sparse_n"}),  # means over training sets
        "predictors": pd.DataFrame({"sae": ["a", "a"], "train": ["x", None], "candidates": "sparse_probes"}),
        "spaces": pd.DataFrame({"space": ["a", "layer_2"], "train": "x", "probe": "sparse_n"}),
        "features": probes.assign(rank=1),
        "regimes": pd.DataFrame(columns=["space", "train", "probe"]),
    }
    rows = apply.rows_of(tables, [("a", "x")])
    assert rows == {"transfer": 1, "saes": 1, "predictors": 2, "spaces": 1}
