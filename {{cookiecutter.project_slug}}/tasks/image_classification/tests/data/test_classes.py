import pytest
from faults import store
from harness import Project, module


@pytest.mark.row("D7")
def test_a_class_that_a_split_lacks_stops_the_pipeline(project: Project) -> None:
    data = project.settings().data
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    rare = (rows["label"] != data.labels[0]) | (
        rows.index == (rows["label"] == data.labels[0]).argmax()
    )
    store(project, rows[rare].reset_index(drop=True))
    loose = "data.split.max_label_deviation=1"
    assert project.run("split", loose) == 1
    report = module("provenance").read_json(project.settings().paths.reports / "splits.json")
    assert f"class '{data.labels[0]}' has 1 rows, and none in" in report["faults"][0]
    assert project.run("split", loose, f"data.allow_absent=['{data.labels[0]}']") == 0
