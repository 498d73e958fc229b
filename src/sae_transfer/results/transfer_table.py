"""results/transfer.csv: the columns of the table that everything else is about."""

from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts

TRANSFER = Table(
    "transfer",
    "one row a (space, A, B, probe, setting): what a probe trained on A is worth on B's test rows",
    (
        *texts(model="the model's name"),
        Column("layer", "integer", "whose output the space is on; empty for text and the model's own words"),
        *texts(space="where the probe lives: layer_<L>, an SAE, text or verbal"),
        Column("sae", "text", "the SAE of a feature space", heading="SAE"),
        Column("train", "text", "the dataset that the probe was trained on", heading="A"),
        Column("test", "text", "the dataset that it is tested on", heading="B"),
        Column("in_domain", "flag", "whether A is B"),
        *texts(
            train_variation="the prompt template of A's rows",
            test_variation="the prompt template of B's rows",
            condition="test: B's test split; whole: all of B's rows",
            probe="the kind of probe",
            family="which probe a control or baseline stands beside, or what a text probe reads",
        ),
        *integers(
            rank="of a 1-sparse probe: the place of its feature in A's ranking, from 1; 0 elsewhere",
            n_features="how many features, or principal components, the probe uses; 0 for a dense one",
        ),
        Column("selected", "flag", "whether the training data chose this rank or N"),
        Column("uses_target", "flag", "whether B's training split trained it"),
        Column("feature_ids", "ids", "the features that it reads, best first"),
        *texts(selection="the rule that chose C and size on A's training rows: log_loss or auc; empty where none did"),
        Column("density", "number", "share of B's test rows on which any of these features fires; empty without"),
        *texts(scaling="of the columns before the penalty", ranking="the rule that ordered the features"),
        Column("C", "number", "inverse strength of the L2 penalty"),
        *integers(
            n_train="training rows of A",
            n_test="test rows of B",
            n_overlap="test rows of B that stand among A's training rows, in any case and spacing; they are left out",
            n_groups="groups among B's test rows",
        ),
        *estimate("auc", "area under the ROC curve of answerable against unanswerable", heading="AUC"),
        Column("auc_train_sd", "number", "standard deviation of the AUC over training samples, or over repeats"),
        *estimate("accuracy", "share of rows on the right side of p = 0.5"),
        *numbers(
            balanced_accuracy="mean of the two classes' accuracies",
            f1="F1 of the unanswerable class at p = 0.5",
            brier="mean squared error of the probability",
            tpr_at_fpr_1="unanswerable rows caught when at most 1% of the answerable ones raise an alarm",
            tpr_at_fpr_5="the same at 5%",
            cv_auc="mean out-of-fold AUC on A of the whole procedure behind the probe, selection included",
        ),
        *estimate(
            "delta_residual",
            "AUC less that of the residual probe of the same layer and A, paired over B's resamples",
            heading="AUC minus residual",
            signed=True,
        ),
        Column(
            "delta_residual_p", "number", "p-value of no such difference (Student's test that belongs to the interval)"
        ),
        REASON,
    ),
)

SCORE_COLUMNS = (
    "train test n_train test_variation condition probe family rank n_features selected id group label score probability"
).split()
