"""The template's own source: readable before it is rendered, free of the task outside its folder, and small."""

import ast
import json
import re
import statistics
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TEMPLATE, load
from tasks import TASKS, Task

PACKAGE = sorted(p for p in TEMPLATE.rglob("*.py") if "src" in p.relative_to(TEMPLATE).parts)
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".cfg", ".html", ".j2", ".css", ".sh", ".txt", ""}
FILES = sorted(p for p in TEMPLATE.rglob("*") if p.is_file() and p.suffix in TEXT)
REPOSITORY = sorted(
    p
    for p in ROOT.rglob("*")
    if p.is_file()
    and not {".git", ".venv", "build", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"} & set(p.parts)
)
STATEMENT = re.compile(r"\{%|^\s*# cc:", re.MULTILINE)
REGISTRIES = re.compile(r"pypi\.(org|io)|pythonhosted\.org|download\.pytorch\.org|anaconda\.(org|com)|npmjs\.(com|org)")
MACHINE = re.compile(r"(?<![\w.~$}-])/(home|Users|root|opt/wheels|opt/pypi|work)/|/tmp/w/")


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=short)
def test_the_package_parses_unrendered_and_has_no_jinja(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ast.parse(text)
    assert not re.search(r"\{\{|\{%|\{#|# cc:|cookiecutter|my_model|my-model", text)


@pytest.mark.parametrize("path", PACKAGE, ids=short)
def test_the_package_imports_itself_relatively(path: Path) -> None:
    own = {p.stem for p in (TEMPLATE / "src" / "{{cookiecutter.package_name}}").iterdir()} - set(
        sys.stdlib_module_names
    )
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        assert not own & {name.partition(".")[0] for name in names}, names


def test_jinja_statements_are_rare() -> None:
    """Of cookiecutter: a .j2 file is a report's own template, which is copied as it is."""
    texts = [p.read_text(encoding="utf-8") for p in FILES if p.suffix != ".j2"]
    lines = sum(bool(line.strip()) for text in texts for line in text.splitlines())
    assert sum(len(STATEMENT.findall(text)) for text in texts) < 0.005 * lines


def test_no_conditional_blocks_but_line_statements() -> None:
    rendered = [
        p for p in FILES if p.suffix not in (".html", ".j2") and ".github" not in p.parts and "deploy" not in p.parts
    ]
    assert not [short(p) for p in rendered if re.search(r"\{%", p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_outside_its_folder_speaks_of_a_task(task: Task) -> None:
    """But for its one choice in cookiecutter.json, its row in tests/tasks, and prose about the template."""
    own = TEMPLATE / "tasks" / task.name
    outside = [p for p in FILES if own not in p.parents and p.name != "requirements.lock"]
    found = {f"{short(p)}: {m.group()}" for p in outside for m in task.words.finditer(p.read_text(encoding="utf-8"))}
    code = [p for folder in ("hooks", "scripts", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    rest = [p for p in code if ROOT / "tests" / "tasks" not in p.parents]
    found |= {short(p) for p in rest if task.name in re.findall(r"\w+", p.read_text(encoding="utf-8"))}
    assert not found


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_is_one_folder_one_choice_and_one_row(task: Task) -> None:
    choices = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["task"]
    folders = sorted(p.name for p in (TEMPLATE / "tasks").iterdir())
    assert sorted(choices) == folders == sorted(t.name for t in TASKS) and task.name in choices


def test_no_registry_and_no_machine_is_named() -> None:
    found = []
    for path in REPOSITORY:
        if path.name == "test_source.py":
            continue
        text = path.read_bytes().decode("utf-8", "ignore")
        found += [f"{short(path)}: {m.group()}" for m in [*REGISTRIES.finditer(text), *MACHINE.finditer(text)]]
    assert not found


def test_tool_caches_stay_out_of_the_template() -> None:
    names = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv"}
    assert not [short(p) for p in TEMPLATE.rglob("*") if p.name in names or p.suffix == ".pyc"]


def test_files_and_functions_are_short() -> None:
    lengths = []
    for path in PACKAGE:
        text = path.read_text(encoding="utf-8")
        limit = 420 if path.name == "settings.py" else 320  # of the former: every key of the configuration in one place
        assert sum(bool(line.strip()) for line in text.splitlines()) <= limit, short(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lengths.append(node.end_lineno - node.lineno + 1)
                assert lengths[-1] <= 50, f"{short(path)} {node.name}"
    assert statistics.median(lengths) <= 12


def test_the_makefile_calls_verbs_that_exist() -> None:
    makefile = (TEMPLATE / "Makefile").read_text(encoding="utf-8")
    main = ast.parse((TEMPLATE / "src" / "{{cookiecutter.package_name}}" / "__main__.py").read_text(encoding="utf-8"))
    verbs = next(
        ast.literal_eval(n.value)
        for n in main.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "VERBS"
    )
    called = set(re.findall(r"\$\(VERB\) ([a-z]+)", makefile))
    assert called and called <= set(verbs)
    package = TEMPLATE / "src" / "{{cookiecutter.package_name}}"
    for module, _ in verbs.values():
        assert (package / f"{module.replace('.', '/')}.py").is_file(), module


def test_hooks_are_small_and_use_the_standard_library_alone() -> None:
    for name in ("pre_gen_project", "post_gen_project"):
        text = (ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8")
        imports = {a.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names}
        assert imports <= set(sys.stdlib_module_names) - {"subprocess", "urllib", "socket"}
        load(f"hooks/{name}.py")  # importing does nothing
