"""How stable probes and features are: what became of them on other training samples (`probing/resampling.py`).

Every interval here is a range of quantiles over the training samples, on the same test rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from sae_transfer.artifacts.resamples import Resampled
from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.space import Space
from sae_transfer.probing import kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.resampling import PROBES, Refit, Resampling, refitted, samples
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked
from sae_transfer.results import cells
from sae_transfer.results.schema import Column, Table, integers, numbers, texts
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.stats import roc
from sae_transfer.stats.intervals import LEVEL, MIN_GROUPS

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

KEPT = 100  # features of each sample's ranking
TRAINED_ONCE = "auc_train_sd: trained once"
SPACE = (
    Column("space", "text", "a residual stream or an SAE"),
    Column("layer", "integer", "whose output the space is on"),
    Column("sae", "text", "the SAE of a feature space"),
    Column("train", "text", "A, the dataset whose training rows are drawn again", heading="trained on"),
)
DRAWN = (
    Column("resampling", "text", "bootstrap: A's groups, with replacement; half_sample: half of them, without"),
    Column("resamples", "integer", "how many training samples the numbers are over"),
    Column("n_train", "integer", "training rows of A"),
)
REASON = Column("reason", "text", "why numbers over samples are missing, or rest on fewer")

BOOTSTRAP = Table(
    "bootstrap",
    "one row a (space, A, B, probe, resampling): how a probe's AUC on B varies over training samples",
    (
        *SPACE,
        *texts(
            test="B, the dataset whose test rows the AUC is on",
            test_variation="the prompt template of B's rows, its own",
        ),
        Column("in_domain", "flag", "whether A is B"),
        Column("probe", "text", "the kind of probe"),
        *integers(
            rank="the place of a 1-sparse probe's feature in each sample's own ranking; 0 elsewhere",
            n_features="the N of an N-sparse probe",
        ),
        Column("selected", "flag", "whether A's rows chose this rank or N"),
        *DRAWN,
        *numbers(
            auc="of the probe trained on all rows",
            auc_mean="mean over the samples",
            auc_sd="standard deviation over them",
            auc_low="2.5% quantile over them",
            auc_high="97.5% quantile",
        ),
        REASON,
    ),
)
SUMMARY = (
    *BOOTSTRAP.pick("space", "probe"),
    Column("domain", "text", "", heading="tested"),
    Column("resampling", "text", "", heading="what varies"),
    Column("mean", "number", "", heading="mean over cells", digits=3),
    Column("most", "number", "", heading="largest", digits=3),
    Column("lowest", "number", "", heading="lowest AUC of any sample"),
    Column("highest", "number", ""),
)

BOOTSTRAP_FEATURES = Table(
    "bootstrap_features",
    "one row a (SAE, A, feature, resampling), for each feature among the best n or top_k of some sample. One that "
    "fires on too few rows to be ranked stands one place behind the last",
    (
        *SPACE,
        Column("feature", "integer", "its id"),
        *DRAWN,
        *integers(n="the N that A's rows chose", top_k="how many 1-sparse probes there are", rank="rank on all rows"),
        Column("rank_median", "number", "of its rank over the samples", heading="median rank", digits=1),
        *numbers(rank_low="2.5% quantile of its rank", rank_high="97.5% quantile"),
        Column("selected_first", "number", "share of samples in which it ranks first", heading="ranks first"),
        Column("selected_n", "number", "share in which it is among the best n", heading="among the best N"),
        Column("selected_top_k", "number", "share in which it is among the best top_k", heading="among the best K"),
        REASON,
    ),
)
STABLE = "space train feature rank selected_first selected_top_k selected_n rank_median".split()


@dataclass(frozen=True)
class ResampleTables:
    """What became of one A's probes: rows of `BOOTSTRAP` and `BOOTSTRAP_FEATURES`, and what other analyses read."""

    areas: pd.DataFrame
    features: pd.DataFrame
    resampled: Resampled


def resample(study: "Study", space: Space, dataset: str) -> ResampleTables:
    """Draws A's training rows again, at each size that its probes were trained at, and tests every probe on every B."""
    train, params = study.rows(space, dataset), study.params.probe.at(space.name, dataset)
    tests = {name: by_column(study.rows(space, name, "unseen")) for name in study.datasets}
    fitted = [probe for probe in study.probes(space, dataset) if probe.kind in PROBES]
    areas, features = [], list[pd.DataFrame]()
    drawn: dict[tuple[int, Resampling], list[Refit]] = {}
    for size in study.sizes(train.labels):
        part = train.take(size)
        same = [probe for probe in fitted if probe.n_train == len(part)]
        ranking = ranked(part, study.seed, params).feature_ids if space.sae else None
        for resampling in get_args(Resampling):
            rows = samples(part, resampling, study.seed, dataset, study.params.bootstrap)
            refits = drawn[len(part), resampling] = refitted(same, part, rows, study.seed, params)
            about = {"space": space.name, "layer": space.layer, "sae": space.sae, "train": dataset}
            about |= {"resampling": resampling, "n_train": len(part)}
            for name, test in tests.items():
                of_b = {"test": name, "test_variation": study.templates(name)[0], "in_domain": name == dataset}
                areas += [about | of_b | row for row in spread(same, refits, test, part.n_groups)]
            if ranking is not None:
                rankings = [one.ranking for one in refits]
                features.append(selection(same, ranking, rankings, part.n_groups).assign(**about))
    stable = pd.concat(features, ignore_index=True) if features else pd.DataFrame()
    stable = stable.reindex(columns=BOOTSTRAP_FEATURES.names)
    return ResampleTables(BOOTSTRAP.frame(areas), stable, kept(drawn[len(train), "bootstrap"]))


def by_column(test: Rows) -> Rows:
    """Test rows laid out as sparse probes read them: a few columns at a time."""
    return test if isinstance(test.X, np.ndarray) else replace(test, X=test.X.tocsc())


def kept(refits: Sequence[Refit]) -> Resampled:
    """What other analyses read of the training samples."""
    found = [probe.weights for refit in refits for probe in refit.probes if probe and probe.kind == "residual"]
    weights = np.array(found) if found else np.empty((0, 0))
    return Resampled(weights, tuple(refit.ranking[:KEPT] for refit in refits))


def spread(fitted: Sequence[Probe], refits: Sequence[Refit], test: Rows, n_groups: int) -> Iterator[dict[str, Any]]:
    """How each probe's AUC on one test set varies: rows of `BOOTSTRAP`, from `probe` on.

    Args:
        fitted: the probes trained on all rows of A.
        refits: what they became on each sample.
        test: B's test rows.
        n_groups: in A's training rows.
    """
    for i, probe in enumerate(fitted):
        own, areas = _area(probe, test), np.array([_area(one.probes[i], test) for one in refits])
        about = {"probe": probe.kind, "rank": probe.rank, "n_features": probe.n_features, "selected": probe.selected}
        yield about | {"auc": own} | _summary(own, areas, n_groups)


def _area(probe: Probe | None, test: Rows) -> float:
    return np.nan if probe is None else roc.auc(probe.score(test.X), test.labels)


def _summary(own: float, areas: Floats, n_groups: int) -> dict[str, Any]:
    found = areas[~np.isnan(areas)]
    lost = len(areas) - len(found)
    reason = f"{lost} of {len(areas)} training samples have too few groups or features" if lost else ""
    if np.isnan(own):
        reason = "one class"
    elif n_groups < MIN_GROUPS:
        reason = _few(n_groups)
    row = {"resamples": len(found), "reason": reason}
    if len(found) < 2:
        return row
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean, sd = round(float(found.mean()), 12), round(float(found.std(ddof=1)), 12)  # equal areas have no deviation
    return row | {"auc_mean": mean, "auc_sd": sd, "auc_low": float(low), "auc_high": float(high)}


def _few(n_groups: int) -> str:
    return f"{n_groups} training groups, fewer than {MIN_GROUPS}"


def selection(fitted: Sequence[Probe], all_rows: Ints, rankings: Sequence[Ints], n_groups: int) -> pd.DataFrame:
    """How often each feature is selected and how its rank varies: rows of `BOOTSTRAP_FEATURES`, the most stable first.

    Args:
        fitted: the probes trained on all rows of A; they say which N was selected, and how many ranks are probes.
        all_rows: feature ids, best first, ranked on all of A's training rows.
        rankings: the same on each training sample; an empty one (a sample without folds) does not count.
        n_groups: in A's training rows.
    """
    n = next((len(probe.weights) for probe in fitted if probe.kind == "sparse_n" and probe.selected), 0)
    top_k = max((probe.rank for probe in fitted), default=0)
    counted = [ranking for ranking in rankings if len(ranking)]
    lost = len(rankings) - len(counted)
    listed = np.unique(np.concatenate([ranking[: max(n, top_k)] for ranking in (all_rows, *counted)]))
    own = _places(all_rows, listed)
    table: dict[str, Any] = {"feature": listed, "rank": own, "resamples": len(counted), "n": n, "top_k": top_k}
    if counted:
        places = np.array([_places(ranking, listed) for ranking in counted])
        for name, share in (("rank_low", (1 - LEVEL) / 2), ("rank_median", 0.5), ("rank_high", (1 + LEVEL) / 2)):
            table[name] = np.quantile(places, share, axis=0)
        for name, most in (("selected_first", 1), ("selected_n", n), ("selected_top_k", top_k)):
            table[name] = (places <= most).mean(axis=0)
        reason = f"{lost} of {len(rankings)} training samples have too few groups for the folds" if lost else ""
        order = np.lexsort((listed, places.mean(axis=0)))
    else:
        few = n_groups < MIN_GROUPS
        reason = _few(n_groups) if few else "no training sample has enough groups for the folds"
        order = np.argsort(own)
    return pd.DataFrame(table).assign(reason=reason).iloc[order]


def _places(ranking: Ints, features: Ints) -> Ints:
    """The place from 1 of each feature in a ranking, one behind the last for those that it lacks."""
    places = np.full(max(ranking.max(initial=0), features.max(initial=0)) + 1, len(ranking) + 1)
    places[ranking] = np.arange(1, len(ranking) + 1)
    found: Ints = places[features]
    return found


def with_train_sd(table: pd.DataFrame, bootstrap: pd.DataFrame) -> pd.DataFrame:
    """The transfer table with `auc_train_sd` from the bootstrap, or with the `reason` why there is none.

    Args:
        table: the columns of `transfer_table.TRANSFER`.
        bootstrap: the columns of `BOOTSTRAP`.
    """
    keys = ["space", "train", "test", "test_variation", "probe", "rank", "n_features", "n_train"]
    over_groups = bootstrap[bootstrap["resampling"] == "bootstrap"].set_index(keys)[["auc_sd", "reason"]]
    found = table[keys].join(over_groups, on=keys)
    asked = table["condition"] == "test"
    sd = found["auc_sd"].astype(np.float64).where(asked).to_numpy()
    why = found["reason"].fillna("").where(asked, "").to_numpy()
    return table.assign(
        auc_train_sd=np.where(np.isnan(sd), table["auc_train_sd"], sd),
        reason=[_explained(*each) for each in zip(table["reason"].fillna(""), sd.tolist(), why, strict=True)],
    )


def _explained(reason: str, sd: float, why: str) -> str:
    """A row's reasons when its `auc_train_sd` is known, or is missing for a reason of its own."""
    if np.isnan(sd) and not why:
        return reason
    own = f"auc_train_sd: {why}" if np.isnan(sd) else ""
    parts = [own if part == TRAINED_ONCE else part for part in reason.split("; ")]
    return "; ".join(filter(None, parts))


def section(tables: Tables) -> Section:
    """The section of the report."""
    rows = tables["bootstrap"]
    chosen = cells.full_size(rows[rows["selected"]])
    chosen = chosen.assign(domain=chosen["in_domain"].map({True: "in domain", False: "out of domain"}))
    numbers = {"mean": ("auc_sd", "mean"), "most": ("auc_sd", "max")}
    numbers |= {"lowest": ("auc_low", "min"), "highest": ("auc_high", "max")}
    means, by_space = (
        chosen.groupby(keys, sort=False).agg(**numbers).reset_index()
        for keys in (["probe", "domain", "resampling"], ["space", "probe", "domain", "resampling"])
    )
    listed = [
        look_up(means[means["resampling"] == "bootstrap"], "Means over spaces and cells", SUMMARY[1:]),
        look_up(by_space, "Standard deviation of the AUC over training samples", SUMMARY),
    ]
    if "bootstrap_features" in tables:
        best = tables["bootstrap_features"].sort_values(["space", "train", "rank"], kind="stable")
        largest = best.groupby(["space", "train"])["n_train"].transform("max")
        best = best[(best["resampling"] == "bootstrap") & (best["n_train"] == largest)]
        best = best.groupby(["space", "train"], sort=False).head(3)
        best = best.rename(columns={"rank_low": "rank_median_low", "rank_high": "rank_median_high"})
        caption = "How often the best features are selected when the training groups are resampled"
        listed.append(look_up(best, caption, BOOTSTRAP_FEATURES.pick(*STABLE)))
    return Section(
        "sure",
        "Would another training sample change it?",
        claim(means),
        "The other intervals hold the training set fixed. Here it varies: its groups are resampled with replacement "
        "(bootstrap), or half of them are taken without (half sample), features are ranked anew and probes are fitted "
        "again. Where the spread is wide, a single training set's number says little.",
        BOOTSTRAP.name,
        (),
        [Picture("training_spread", "AUC of each probe against its spread over training samples, one panel an SAE.")],
        listed,
        aside=True,
    )


def claim(means: pd.DataFrame) -> str:
    """How much the AUC out of domain varies over bootstraps of A's groups, by kind of probe."""
    away = means[(means["domain"] == "out of domain") & (means["resampling"] == "bootstrap")].dropna(subset=["mean"])
    moved = [f"{row['mean']:.3f} for the {kinds.label(row['probe'])}" for row in away.to_dict("records")]
    if not moved:
        return "How the AUC out of domain varies over training samples is not known."
    return f"Over training samples, the AUC out of domain has a standard deviation of {', '.join(moved)}."
