"""`sae-transfer summary` of a finished study."""

from commands import call
from sae_transfer import cli


def test_summary_is_the_verdict_in_ten_lines_and_all_of_it_on_request(project, monkeypatch, capsys):
    monkeypatch.chdir(project.folder)
    code, out, err = call(monkeypatch, capsys, cli.main, "summary")
    assert (code, err) == (0, "")
    verdict = project.study.verdict()
    *told, where = out.splitlines()
    assert told == verdict.lines
    assert len(told) < 10
    assert "report/index.html" in where
    code, out, err = call(monkeypatch, capsys, cli.main, "summary", "--all")
    assert (code, err) == (0, "")
    assert out.startswith("\n".join(told))
    rows = project.study.table("headline").set_index(["space", "key"])
    row = rows.loc[("narrow_3", "sparse_1")]
    inside, outside = row["auc_in_domain"], row["auc_ood"]
    assert f"narrow_3  sparse_1                   mean AUC in domain {inside:.3f}, out of domain {outside:.3f}" in out
    assert "verbal  verbal" in out
    assert "out of domain not tested" in out
    assert all(f"{notice.severity}: {notice.sentence}" in out for notice in verdict.warnings)
