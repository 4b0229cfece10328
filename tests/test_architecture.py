"""The rules of the layout, held by reading the source: who imports whom, what stays small."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lavis_lite"
CORE = sorted((ROOT / PACKAGE).rglob("*.py"))
PROJECTS = sorted((ROOT / "projects").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LIBRARY = [*CORE, *PROJECTS, ROOT / "run.py"]
PACKAGES = {".".join(p.parent.relative_to(ROOT).parts) for p in CORE if p.name == "__init__.py"}

# The entries of lavis_lite/ in the order of imports: each may import those on lines above its own,
# inside functions and for type checkers too. Entries of one line know nothing of each other.
ORDER = """
errors
io
registry
config distributed
checkpoint
data modules
losses metrics
models
report
runners
projects cli
"""
LEVELS = {part: n for n, line in enumerate(ORDER.strip().splitlines()) for part in line.split()}
TORCH_FREE = [
    "lavis_lite",
    *(f"lavis_lite.{part}" for part in ("errors", "registry", "io", "config", "cli")),
]
LAVIS_NAMES = {"blip_image_train", "blip_image_eval", "blip_caption", "blip_question"}


# ---- who imports whom


def test_the_walk_finds_the_source() -> None:
    assert len(CORE) > 5
    assert len(PROJECTS) > 0
    assert len(TESTS) > 5


def test_the_package_has_at_most_fifteen_entries() -> None:
    entries = {path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py") for path in CORE}
    assert {entry for entry in entries if not entry.startswith("__")} == set(LEVELS)
    assert len(LEVELS) <= 15


def test_imports_run_down_the_order_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {target}"
        for path in CORE
        if (mine := part_of(module_name(path)))  # lavis_lite/__init__.py hands out public names
        for line, target in internal_imports(path)
        if part_of(target) != mine and LEVELS[part_of(target)] >= LEVELS[mine]
    ]
    assert wrong == []


@pytest.mark.parametrize("path", PROJECTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_projects_import_the_core_and_themselves_but_no_other_project(path: Path) -> None:
    own = ".".join(module_name(path).split(".")[:3])
    wrong = [
        f"line {line}: {target}"
        for line, target in internal_imports(path)
        if (target.startswith(f"{PACKAGE}.projects.") and not f"{target}.".startswith(f"{own}."))
        or part_of(target) in {"cli", "run"}
    ]
    assert wrong == []


def test_runners_and_report_take_components_only_through_the_registry() -> None:
    components = {m for kind, m, _ in zoo_names(ROOT / PACKAGE / "zoo.yaml") if kind != "runner"}
    above = [p for p in CORE if part_of(module_name(p)) in {"runners", "report"}]
    assert components
    assert above
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {target}"
        for path in above
        for line, target in internal_imports(path)
        if target in components
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Packages' ``__init__`` files hand names on; a circle is one of modules below them."""
    graph = {module_name(path): {t for _, t in internal_imports(path)} for path in LIBRARY}
    graph |= {name: set() for name in graph if name in PACKAGES}
    circles = list(TopologicalSorter(graph).static_order())
    assert set(circles) >= set(graph)


def test_no_star_import() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*LIBRARY, *TESTS]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names)
    ]
    assert wrong == []


def test_importing_the_front_loads_no_torch() -> None:
    code = "\n".join(
        [f"import {name}" for name in TORCH_FREE]
        + ["import sys", "print([m for m in HEAVY if m in sys.modules])"]
    )
    assert run_python("-c", f"HEAVY = {HEAVY!r}\n{code}").stdout.strip() == "[]"


HEAVY = ["torch", "torchvision", "timm", "transformers", "matplotlib", "webdataset", "pyarrow"]


@pytest.mark.parametrize(
    "command",
    [["run.py", "--help"], ["-m", "lavis_lite.cli", "--help"], ["-m", "lavis_lite.cli", "list"]],
)
def test_help_and_list_load_no_torch(command: list[str]) -> None:
    done = run_python("-X", "importtime", *command)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "lavis_lite.cli" in imported or "run" in imported or "lavis_lite" in imported
    assert sorted(imported & set(HEAVY)) == []
    assert done.stdout.strip()


def test_heavy_libraries_are_imported_inside_functions() -> None:
    lazy = {"torchvision", "timm", "transformers", "matplotlib", "webdataset", "pyarrow"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in LIBRARY
        for node in imports(tree(path), nested=False, typing=False)
        if {name.split(".")[0] for name in imported_names(node)} & lazy
    ]
    assert wrong == []


# ---- the core knows no project


PROJECT_NAMES = sorted(path.parent.name for path in (ROOT / "projects").glob("*/__init__.py"))
# Words in which a project's name means something else: what cuts gradients, ranges and texts; a
# field of MSR-VTT's files; and the processors, which LAVIS's users know by these names.
OTHER_MEANINGS = {"clip", "_clip", "clip_norm", "clip_grads_with_norm_", "clip_grad_norm_"}
OTHER_MEANINGS |= {"clip_name", "BlipCaption", "BlipQuestion", "BlipImageTrain", "BlipImageEval"}


# Scorers have the names of what they compute; so have a loss, a metric, an argument of the core.
SCORES = {"itm", "itc", "sha256", "image_size"}


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_code_of_the_core_names_no_project(path: Path) -> None:
    if path.parent.name == "cli":
        pytest.skip("its help gives examples")
    if path.name == "lavis_names.py":
        pytest.skip("it lists what LAVIS calls its models")
    code = without_docstrings(tree(path))
    words = set(re.findall(rf"\w*(?:{'|'.join(PROJECT_NAMES)})\w*", code, re.IGNORECASE))
    assert words - LAVIS_NAMES - OTHER_MEANINGS == set()
    assert re.findall(rf"{PACKAGE}\.projects\.[a-z]\w*", code) == []


def test_the_projects_whose_names_are_looked_for() -> None:
    assert {"blip", "clip"} <= set(PROJECT_NAMES)


@pytest.mark.parametrize(
    "zoo", sorted((ROOT / "projects").glob("*/zoo.yaml")), ids=lambda p: p.parent.name
)
def test_the_core_names_nothing_that_a_project_registers(zoo: Path) -> None:
    registered = {name for _, _, name in zoo_names(zoo)} - LAVIS_NAMES - SCORES
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in CORE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value in registered
    ]
    assert registered
    assert wrong == []


# ---- what is registered is listed, what is listed is registered


@functools.cache
def registered() -> dict[str, set[tuple[str, str]]]:
    """Module -> (kind, name) of what it registers when every listed module is imported."""
    code = (
        "import importlib, sys; from lavis_lite import registry\n"
        "for module in sys.argv[1:]: importlib.import_module(module)\n"
        "for kind, family in registry.everything.kinds.items():\n"
        "    for name, slot in dict(family).items():\n"
        "        print(slot.definition.builder.__module__, kind, name)"
    )
    found: dict[str, set[tuple[str, str]]] = {}
    modules = sorted({module for zoo in ZOOS for _, module, _ in zoo_names(zoo)})
    for line in run_python("-c", code, *modules).stdout.splitlines():
        module, kind, name = line.split()
        found.setdefault(module, set()).add((kind, name))
    return found


ZOOS = [ROOT / PACKAGE / "zoo.yaml", *sorted((ROOT / "projects").glob("*/zoo.yaml"))]


@pytest.mark.parametrize("zoo", ZOOS, ids=lambda p: p.parent.name)
def test_every_listed_name_is_registered_by_the_module_that_it_is_listed_under(zoo: Path) -> None:
    listed: dict[str, set[tuple[str, str]]] = {}
    for kind, module, name in zoo_names(zoo):
        listed.setdefault(module, set()).add((kind, name))
    assert listed
    assert {module: registered().get(module, set()) for module in listed} == listed


def test_every_module_that_registers_something_is_listed() -> None:
    listed = {module for zoo in ZOOS for _, module, _ in zoo_names(zoo)}
    wrong = [
        module_name(path)
        for path in [*CORE, *PROJECTS]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and any("registry.register(" in ast.unparse(d) for d in node.decorator_list)
        and module_name(path) not in listed
    ]
    assert wrong == []


# ---- what stays small and documented


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_under_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_public_functions_longer_than_a_glance_say_what_they_compute() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in LIBRARY
        for node in public_functions(tree(path))
        if body_length(node) > 8 and not ast.get_docstring(node)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is_about(path: Path) -> None:
    source = tree(path)
    assert not source.body or ast.get_docstring(source)


def test_function_bodies_fit_a_screen() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}, {length} lines"
        for path in LIBRARY
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and (length := body_length(node)) > 50
    ]
    assert wrong == []


def test_the_library_prints_nothing() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*CORE, *PROJECTS]
        if "cli" not in path.parts
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert wrong == []


def test_weights_are_never_unpickled_without_weights_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*LIBRARY, *TESTS]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and "weights_only=True" not in ast.unparse(node)
    ]
    assert wrong == []


def test_nothing_is_left_to_do_in_the_source() -> None:
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*LIBRARY, *TESTS]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_test_module_asserts_something(path: Path) -> None:
    tests = [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    checks = re.compile(r"\bassert\b|\.raises\(|\.warns\(|assert_\w+\(")
    assert not path.name.startswith("test_") or tests
    assert not tests or checks.search(ast.unparse(tree(path)))


def test_docstrings_are_sentences_with_a_subject_or_a_verb() -> None:
    nounless = {"What", "Whether", "Of", "Who", "Which", "Where", "How"}
    wrong = [
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'the module')}"
        for path in LIBRARY
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        and (ast.get_docstring(node) or "").split(" ")[0] in nounless
    ]
    assert wrong == []


def test_few_things_are_of_any_type() -> None:
    lines = [line for path in LIBRARY for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(": Any" in line for line in lines) <= len(lines) / 380


# ---- reading the source


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "projects":
        parts.insert(0, PACKAGE)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """``runners`` for ``lavis_lite.runners.train.runner``; the empty string for the package."""
    parts = module.removesuffix(".__main__").split(".")
    return parts[0] if parts[0] != PACKAGE else (parts[1] if len(parts) > 1 else "")


def internal_imports(path: Path, nested: bool = True) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of our own modules, by default those inside functions too."""
    for node in imports(tree(path), nested):
        for name in imported_names(node, of=path):
            if name == f"{PACKAGE}.projects":  # the empty package that projects are found through
                continue
            if name.split(".")[0] in {PACKAGE, "run"}:
                yield node.lineno, name


def imports(
    node: ast.AST, nested: bool, typing: bool = True
) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, with or without those in functions and those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif (
            isinstance(child, ast.If) and not typing and "TYPE_CHECKING" in ast.unparse(child.test)
        ):
            continue
        elif nested or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(child, nested, typing)


def imported_names(node: ast.Import | ast.ImportFrom, of: Path | None = None) -> list[str]:
    """Full names of the imported modules; ``from a import b`` means a.b where that is a module."""
    if isinstance(node, ast.Import):  # `import lavis_lite` by itself gives the version and no more
        return [alias.name for alias in node.names if alias.name != PACKAGE]
    base = node.module or ""
    if node.level and of is not None:
        package = module_name(of).split(".")
        package = package if of.name == "__init__.py" else package[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
    names = [a.name for a in node.names if (base, a.name) != (PACKAGE, "__version__")]
    return [f"{base}.{name}" if f"{base}.{name}" in our_modules() else base for name in names]


@functools.cache
def our_modules() -> frozenset[str]:
    return frozenset(module_name(path) for path in LIBRARY)


def body_length(node: ast.FunctionDef) -> int:
    """Lines below signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def without_docstrings(source: ast.Module) -> str:
    """The code alone: no comments, and no strings that stand as statements."""

    class Strip(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            return None if isinstance(node.value, ast.Constant) else node

    return ast.unparse(Strip().visit(ast.parse(ast.unparse(source))))


def public_functions(source: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions and methods that a user can reach: no underscore in their name or their class's."""
    for node in source.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            members = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            yield from (m for m in members if not m.name.startswith("_"))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def zoo_names(zoo: Path) -> Iterator[tuple[str, str, str]]:
    """(kind, full module, name) of every component that a zoo.yaml lists."""
    package = PACKAGE if zoo.parent.name == PACKAGE else f"{PACKAGE}.projects.{zoo.parent.name}"
    for kind, modules in OmegaConf.load(zoo).get("components", {}).items():
        for module, names in modules.items():
            yield from ((kind, package + module, name) for name in names)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
