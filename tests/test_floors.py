"""No import of the generated package leads upwards, and none in a circle: what lies above may change without fear."""

import ast
import re
from pathlib import Path

import pytest
from conftest import TEMPLATE
from tasks import TASKS, Task

PACKAGE = Path("src") / "{{cookiecutter.package_name}}"
# From the ground up; the modules of one floor may import each other, but not in a circle.
FLOORS = [
    {"settings"},
    {"types", "logs", "params", "personal", "provenance", "task", "modeling.kinds", "modeling.losses"},
    {"data", "pages"},
    {"modeling"},
    {"store", "glance"},
    {"mirror"},
    {"tracking", "worktree"},
    {"training"},
    {"evaluation"},
    {"packaging"},
    {"serving"},
    {"monitoring"},
    {"experiments", "recipes"},
    {"pipeline", "checklist"},
    {"__main__"},
]
MAY_IMPORT = {"task": {"task", "settings", "types", "personal"}}  # what an owner edits needs no stage


def imports(path: Path, name: str) -> set[str]:
    """Modules of the package that a file imports or loads by name, wherever in it, but for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    hidden = {id(inner) for node in unseen for inner in ast.walk(node)}
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in hidden:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}".strip(".") for alias in node.names} | ({module} if module else set())
    return names | {f"{'.'.join(package)}.{other}".strip(".") for other in loaded(tree)}


def loaded(tree: ast.AST) -> set[str]:
    """Modules beside this one that are loaded by name, for lean leaves them out; to ask only whether one is there, as
    in `find_spec(...) is not None`, is no arrow.
    """
    names, asked = (
        set(),
        [n for compare in ast.walk(tree) if isinstance(compare, ast.Compare) for n in ast.walk(compare)],
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node not in asked:
            match = re.fullmatch(r"f'\{__package__\}\.([\w.]+)'", ast.unparse(node))
            names |= {match.group(1)} if match else set()
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                names.add(name.value.removeprefix("."))
    return names


def package(task: str) -> dict[str, set[str]]:
    """Modules of a project of that task, with those that each imports."""
    files = {}
    for root in (TEMPLATE / PACKAGE, TEMPLATE / "tasks" / task / PACKAGE):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    empty = {name for name, path in files.items() if path.name == "__init__.py"} - {"modeling.kinds", "data.sources"}
    for name in empty:  # a docstring and no more
        files.pop(name)
    found = {name: imports(path, name) for name, path in files.items()}
    return {name: {used for used in names if used in files and used != name} for name, names in found.items()}


def floor(name: str) -> int:
    """Number of a module's floor: of the longest name that FLOORS has for it."""
    places = {known: i for i, level in enumerate(FLOORS) for known in level}
    while name not in places:
        name = name.rpartition(".")[0]
        assert name, "a module that is on no floor: add it to FLOORS"
    return places[name]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_import_leads_upwards(task: Task) -> None:
    modules = package(task.name)
    assert len(modules) > 50
    upwards = {f"{name} -> {used}" for name, uses in modules.items() for used in uses if floor(used) > floor(name)}
    assert upwards == set()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_two_files_import_each_other(task: Task) -> None:
    waiting = package(task.name)
    while free := {name for name, uses in waiting.items() if not uses & set(waiting)}:
        waiting = {name: uses for name, uses in waiting.items() if name not in free}
    assert waiting == {}, "a circle"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_an_owner_edits_needs_no_stage(task: Task) -> None:
    for name, uses in package(task.name).items():
        first = name.partition(".")[0]
        if first in MAY_IMPORT:
            assert {used.partition(".")[0] for used in uses} <= MAY_IMPORT[first], name
