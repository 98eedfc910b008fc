from pathlib import Path

import pytest
from harness import ROOT, Project, module

card = module("data.card")


def text(project: Project) -> str:
    assert [project.run(verb) for verb in ("ingest", "validate", "split")] == [0, 0, 0]
    return str((project.settings().paths.reports / "data_card.md").read_text(encoding="utf-8"))


@pytest.mark.row("D1")
def test_the_pipeline_fills_in_the_statistics(project: Project) -> None:
    content, settings = text(project), project.settings()
    manifest = module("provenance").read_json(settings.paths.raw / "manifest.json")
    rows = module("data.ingest").read(settings)
    (file,) = manifest["files"].values()
    assert f"| rows | {len(rows)} |" in content and f"| bytes | {file['bytes']} |" in content
    assert (
        f"`{module('provenance').data_version(settings)}`" in content and file["sha256"] in content
    )
    for name, count in rows["label"].value_counts().items() if settings.data.labels else []:
        assert f"| {name} | {count} |" in content
    for name in rows:
        assert f"| {name} | {rows[name].dtype} | {rows[name].isna().sum()} |" in content
    assert content.startswith(Path("docs/data_card.md").read_text(encoding="utf-8").rstrip())


@pytest.mark.row("D1")
def test_the_demo_answers_all_questions(project: Project) -> None:
    answers = (ROOT / "docs" / "data_card.md").read_text(encoding="utf-8")
    asked = [
        "exists",
        "Owner",
        "Licence",
        "Access",
        "Fresh",
        "Size",
        "Missing",
        "Privacy",
        "Feedback",
        "Retention",
    ]
    assert card.unanswered(project.settings()) == [] and all(word in answers for word in asked)


@pytest.mark.row("D1")
def test_a_missing_answer_and_another_data_set_are_noticed(project: Project) -> None:
    page = Path("docs/data_card.md")
    page.write_text(
        "Answers for the data set: x\n\n## Owner\n> Who?\n\n## Licence\n> Which?\n\nMIT\n",
        encoding="utf-8",
    )
    assert card.unanswered(project.settings("data.name=x")) == ["Owner"]
    assert card.unanswered(project.settings("data.name=y")) == ["Owner", "Licence"]
    page.unlink()
    assert card.unanswered(project.settings()) == ["docs/data_card.md"]
