"""The registry, on fresh instances: names, wildcards, plug-ins, and every error text."""

from __future__ import annotations

import importlib
import inspect
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lavis_lite import registry as registry_module
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.registry import Registry
from lavis_lite.registry.contracts import KINDS
from lavis_lite.registry.plugins import ComponentIndex, load_plugin

ROOT = Path(__file__).resolve().parents[2]


class Net:
    """Takes two numbers."""

    def __init__(self, depth: int = 1, *, image_size: int = 8) -> None:
        self.depth, self.image_size = depth, image_size


def build_net(depth: int) -> Net:
    """A builder function."""
    return Net(depth)


def anything(**options: Any) -> dict[str, Any]:
    return options


@pytest.fixture
def fresh() -> Registry:
    return Registry()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """``package(name, zoo, **modules)`` writes an importable package with a zoo.yaml."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, zoo: str, **modules: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "zoo.yaml").write_text(zoo)
        for module, code in modules.items():
            (tmp_path / name / f"{module}.py").write_text(code)
        importlib.invalidate_caches()
        return name

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """``shelf(package, ...)`` is a registry of these packages, which they register with."""

    def make(*packages: str) -> Registry:
        made = Registry(index=ComponentIndex(packages=packages))
        monkeypatch.setattr(registry_module, "register", made.register)
        return made

    return make


# ---- register, get, build


def test_a_registered_class_is_found_and_built_with_its_arguments(fresh: Registry) -> None:
    fresh.register("vision_encoder", "net")(Net)
    assert fresh.get("vision_encoder", "net") is Net
    assert fresh.build("vision_encoder", {"name": "net", "depth": 3}).depth == 3


def test_register_returns_what_it_decorates(fresh: Registry) -> None:
    assert fresh.register("loss", "f")(build_net) is build_net


def test_runtime_arguments_go_only_to_builders_that_take_them(fresh: Registry) -> None:
    fresh.register("vision_encoder", "class")(Net)
    fresh.register("vision_encoder", "function")(build_net)
    fresh.register("vision_encoder", "open")(anything)
    assert fresh.build("vision_encoder", {"name": "class"}, image_size=32).image_size == 32
    assert fresh.build("vision_encoder", {"name": "function", "depth": 2}, image_size=32).depth == 2
    assert fresh.build("vision_encoder", {"name": "open", "a": 1}, image_size=32) == {"a": 1}


def test_an_argument_of_the_config_wins_over_a_runtime_argument(fresh: Registry) -> None:
    fresh.register("vision_encoder", "net")(Net)
    built = fresh.build("vision_encoder", {"name": "net", "image_size": 16}, image_size=32)
    assert built.image_size == 16


def test_build_names_an_argument_that_is_not_taken_and_the_nearest(fresh: Registry) -> None:
    fresh.register("vision_encoder", "net")(Net)
    with pytest.raises(ConfigError) as error:
        fresh.build("vision_encoder", {"name": "net", "dept": 3})
    assert str(error.value) == (
        "vision_encoder 'net' takes no 'dept'. Did you mean 'depth'? It takes: depth, image_size"
    )


def test_build_needs_a_name(fresh: Registry) -> None:
    with pytest.raises(ConfigError, match=r"a loss needs a `name`: \{'alpha': 1\}"):
        fresh.build("loss", {"alpha": 1})


def test_build_says_when_nothing_is_taken_and_reports_every_argument(fresh: Registry) -> None:
    fresh.register("metric", "bare")(lambda: 0)
    with pytest.raises(ConfigError) as error:
        fresh.build("metric", {"name": "bare", "a": 1, "b": 2})
    assert str(error.value).splitlines() == [
        "metric 'bare' takes no 'a'. It takes: no arguments",
        "metric 'bare' takes no 'b'. It takes: no arguments",
    ]


def test_build_names_an_argument_that_is_missing(fresh: Registry) -> None:
    fresh.register("loss", "net")(build_net)
    with pytest.raises(ConfigError, match="loss 'net' needs 'depth'"):
        fresh.build("loss", {"name": "net"})


def test_arguments_leave_out_what_the_program_supplies(fresh: Registry) -> None:
    fresh.register("vision_encoder", "net")(Net)
    assert list(fresh.entry("vision_encoder", "net").arguments) == ["depth"]
    assert list(fresh.entry("vision_encoder", "net").parameters) == [
        "depth",
        "image_size",
    ]


def test_a_module_without_a_constructor_takes_no_arguments(fresh: Registry) -> None:
    class Plain(nn.Module):
        width = 8

    fresh.register("vision_encoder", "plain")(Plain)
    assert fresh.entry("vision_encoder", "plain").arguments == {}
    assert isinstance(fresh.build("vision_encoder", {"name": "plain"}, image_size=8), Plain)
    with pytest.raises(ConfigError, match=r"'plain' takes no 'depth'\. It takes: no arguments"):
        fresh.build("vision_encoder", {"name": "plain", "depth": 1})


def test_result_is_the_class_or_what_the_builder_says_that_it_returns(fresh: Registry) -> None:
    fresh.register("vision_encoder", "class")(Net)
    fresh.register("vision_encoder", "function")(build_net)
    fresh.register("vision_encoder", "silent")(lambda: 0)
    assert fresh.entry("vision_encoder", "class").result is Net
    assert fresh.entry("vision_encoder", "function").result is Net
    assert fresh.entry("vision_encoder", "silent").result is None


def test_where_is_the_line_of_the_definition(fresh: Registry) -> None:
    fresh.register("vision_encoder", "net")(Net)
    line = inspect.getsourcelines(Net)[1]
    assert fresh.entry("vision_encoder", "net").where.endswith(f"test_registry.py:{line}")


# ---- names and wildcards


def test_names_are_sorted_and_matched_by_shell_patterns(fresh: Registry) -> None:
    for name in ("b_two", "a", "b_one"):
        fresh.register("loss", name)(anything)
    assert fresh.names("loss") == ["a", "b_one", "b_two"]
    assert fresh.names("loss", "b*") == ["b_one", "b_two"]
    assert fresh.names("loss", "c*") == []


@pytest.fixture
def wild(fresh: Registry) -> Registry:
    def expand(pattern: str) -> list[str]:
        return [n for n in ("acme/small", "acme/large") if n.startswith(pattern.rstrip("*"))]

    def builder(name: str, scale: int = 1, *, image_size: int = 8) -> tuple[str, int, int]:
        return name, scale, image_size

    fresh.register("vision_encoder", "acme/*", expand=expand)(builder)
    return fresh


def test_a_wildcard_gives_its_builder_what_stands_for_the_star(wild: Registry) -> None:
    assert wild.build("vision_encoder", {"name": "acme/small", "scale": 2}) == ("small", 2, 8)
    assert wild.get("vision_encoder", "acme/x/y")(image_size=4) == ("x/y", 1, 4)
    assert list(wild.entry("vision_encoder", "acme/small").arguments) == ["scale"]


def test_a_wildcard_is_listed_as_such_and_expanded_by_a_pattern_below_it(wild: Registry) -> None:
    assert wild.names("vision_encoder") == ["acme/*"]
    assert wild.names("vision_encoder", "acme/s*") == ["acme/small"]
    assert wild.names("vision_encoder", "acme/*") == ["acme/large", "acme/small"]


def test_an_exact_name_wins_over_a_wildcard(wild: Registry) -> None:
    wild.register("vision_encoder", "acme/small")(Net)
    assert wild.get("vision_encoder", "acme/small") is Net


def test_a_wildcard_can_say_which_arguments_a_name_takes(fresh: Registry) -> None:
    def arguments(rest: str) -> dict[str, inspect.Parameter]:
        return {rest: inspect.Parameter(rest, inspect.Parameter.KEYWORD_ONLY)}

    fresh.register("loss", "w/*", arguments=arguments)(lambda name, **args: args)
    assert list(fresh.entry("loss", "w/depth").arguments) == ["depth"]


# ---- errors


def test_an_unknown_kind_names_the_nearest_and_all(fresh: Registry) -> None:
    with pytest.raises(UnknownName) as error:
        fresh.register("los", "x")
    known = ", ".join(KINDS)
    assert str(error.value) == f"no kind 'los'. Did you mean 'loss'? Known: {known}"


def test_an_unknown_name_names_the_nearest_and_all(fresh: Registry) -> None:
    fresh.register("loss", "contrast")(anything)
    fresh.register("loss", "match")(anything)
    with pytest.raises(UnknownName) as error:
        fresh.get("loss", "contrats")
    assert str(error.value) == (
        "no loss named 'contrats'. Did you mean 'contrast'?\n  known: contrast, match"
    )
    assert fresh.problem("loss", "contrats") == str(error.value)
    assert fresh.problem("loss", "match") is None


def test_a_name_without_its_prefix_is_spelled_with_it(fresh: Registry) -> None:
    for name in ("zoo/*", "hub/*", "residual"):
        fresh.register("vision_encoder", name)(anything)
    with pytest.raises(UnknownName) as error:
        fresh.get("vision_encoder", "net50")
    assert str(error.value).splitlines()[0] == (
        "no vision_encoder named 'net50'. From hub/* it would be 'hub/net50'. From zoo/* it would "
        "be 'zoo/net50'."
    )
    assert "Did you mean 'residual'?\n" in (fresh.problem("vision_encoder", "residul") or "")


def test_an_empty_kind_says_that_it_has_none(fresh: Registry) -> None:
    with pytest.raises(UnknownName, match=r"no metric named 'x'\.\n  known: none"):
        fresh.get("metric", "x")


@pytest.mark.fault(51)
def test_a_second_registration_says_where_the_first_is(fresh: Registry) -> None:
    fresh.register("loss", "x")(build_net)
    with pytest.raises(ConfigError) as error:
        fresh.register("loss", "x")(anything)
    first, second = (inspect.getsourcelines(f)[1] for f in (build_net, anything))
    assert str(error.value) == (
        f"loss 'x' is already registered at {__file__}:{first}; {__file__}:{second} "
        f"needs another name, such as '{__name__.partition('.')[0]}_x'"
    )
    assert fresh.get("loss", "x") is build_net


def test_the_same_name_in_two_kinds_is_no_conflict(fresh: Registry) -> None:
    fresh.register("model", "blip_caption")(Net)
    fresh.register("processor", "blip_caption")(anything)
    assert fresh.get("model", "blip_caption") is not fresh.get("processor", "blip_caption")


def test_a_notebook_cell_that_is_run_again_replaces_its_definition(fresh: Registry) -> None:
    def definition(module: str) -> type:
        return type("Cell", (), {"__module__": module, "__qualname__": "Cell"})

    newer = definition("__main__")
    fresh.register("loss", "x")(definition("__main__"))
    fresh.register("loss", "x")(newer)
    assert fresh.get("loss", "x") is newer
    with pytest.raises(ConfigError, match=r"already registered at __main__\.Cell"):
        fresh.register("loss", "x")(definition("elsewhere"))


def test_a_module_that_is_reloaded_replaces_its_definitions(fresh: Registry) -> None:
    code = "def f():\n    return 1\n"
    first, second = {"__name__": "m"}, {"__name__": "m"}
    for space in (first, second):
        exec(compile(code, __file__, "exec"), space)
        fresh.register("loss", "f")(space["f"])  # type: ignore[type-var]
    assert fresh.get("loss", "f") is second["f"]


# ---- packages with a zoo.yaml

GOOD = """
from lavis_lite import registry

@registry.register("loss", "good")
def good() -> str:
    return "built"
"""


def test_a_listed_name_is_found_without_importing_and_built_after_importing(
    package: Callable[..., str], shelf: Callable[..., Registry]
) -> None:
    found = shelf(package("acme", "components: {loss: {.parts: [good]}}", parts=GOOD))
    assert found.names("loss") == ["good"]
    assert found.problem("loss", "good") is None
    assert "acme.parts" not in sys.modules
    assert found.build("loss", {"name": "good"}) == "built"


def test_looking_up_a_name_imports_its_module_and_no_other(
    package: Callable[..., str], shelf: Callable[..., Registry]
) -> None:
    zoo = "components: {loss: {.parts: [good], .other: [bad]}}"
    found = shelf(package("acme2", zoo, parts=GOOD, other="raise RuntimeError"))
    found.get("loss", "good")
    assert "acme2.parts" in sys.modules
    assert "acme2.other" not in sys.modules
    assert found.index.failures == {}


@pytest.mark.fault(51)
def test_a_module_that_fails_to_import_is_named_and_breaks_nothing_else(
    package: Callable[..., str], shelf: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    good = package("fine", "components: {loss: {.parts: [good]}}", parts=GOOD)
    brk = package("brk", "components: {loss: {.net: [lost]}}", net="import not_there")
    found = shelf(brk, good)
    with pytest.raises(UnknownName) as error:
        found.get("loss", "lost")
    assert str(error.value) == (
        "loss 'lost' cannot be used: its module brk.net failed to import "
        "(ModuleNotFoundError: No module named 'not_there')"
    )
    assert found.build("loss", {"name": "good"}) == "built"
    with pytest.raises(UnknownName) as error:
        found.get("loss", "goof")
    assert str(error.value).splitlines()[1:] == [
        "  known: good, lost",
        "  plug-ins that failed to import: brk.net "
        "(ModuleNotFoundError: No module named 'not_there')",
    ]
    with pytest.raises(UnknownName, match="cannot be used"):
        found.get("loss", "lost")
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        "brk.net cannot be used: ModuleNotFoundError: No module named 'not_there'"
    ]


def test_a_repaired_module_works_without_starting_anew(
    package: Callable[..., str], shelf: Callable[..., Registry], tmp_path: Path
) -> None:
    broken = package("mended", "components: {loss: {.parts: [good]}}", parts="1 / 0")
    found = shelf(broken)
    with pytest.raises(UnknownName, match="ZeroDivisionError"):
        found.get("loss", "good")
    (tmp_path / "mended" / "parts.py").write_text(GOOD)
    importlib.invalidate_caches()
    assert found.build("loss", {"name": "good"}) == "built"
    assert found.index.failures == {}


def test_a_name_that_its_module_does_not_register_is_an_error(
    package: Callable[..., str], shelf: Callable[..., Registry]
) -> None:
    found = shelf(package("liar", "components: {loss: {.parts: [good, promised]}}", parts=GOOD))
    with pytest.raises(UnknownName) as error:
        found.get("loss", "promised")
    assert str(error.value) == (
        "loss 'promised' cannot be used: its module liar.parts does not register it"
    )


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("zoo", "why"),
    [
        ("components: [a", "ParserError"),
        ("[1, 2]", "a mapping is expected"),
        ("components: [itc]", "components: a mapping is expected"),
        ("components: {loss: [itc]}", "components.loss: module -> list of names is expected"),
        ("models:", "models: a mapping is expected"),
    ],
)
def test_a_package_with_a_bad_zoo_is_named_and_breaks_nothing_else(
    zoo: str,
    why: str,
    package: Callable[..., str],
    shelf: Callable[..., Registry],
    request: pytest.FixtureRequest,
) -> None:
    name = f"bad_zoo_{abs(hash(request.node.name))}"
    good = package(f"{name}_good", "components: {loss: {.parts: [good]}}", parts=GOOD)
    found = shelf(package(name, zoo), "no_such_package", good)
    assert found.names("loss") == ["good"]
    assert why in found.index.failures[name]
    assert "no package 'no_such_package'" in found.index.failures["no_such_package"]


@pytest.mark.fault(51)
def test_a_name_that_two_packages_list_is_neither_s_until_one_gives_way(
    package: Callable[..., str], shelf: Callable[..., Registry]
) -> None:
    zoo = "components: {loss: {.parts: [good, %s]}}"
    first = package("first", zoo % "one", parts=GOOD)
    second = package(
        "second",
        zoo % "two",
        parts='import lavis_lite.registry as r\nr.register("loss", "two")(id)' + GOOD,
    )
    found = shelf(first, second)
    assert found.names("loss") == ["good", "one", "two"]
    assert found.index.failures == {
        "second.parts": "ConfigError: loss 'good' already belongs to first.parts"
    }
    # Nor does whoever is imported first take it.
    found.index.load("second.parts")
    assert "needs another name" in found.index.failures["second.parts"]
    with pytest.raises(ConfigError, match=r"'good' exists twice: in first\.parts and in second\."):
        found.get("loss", "good")


def test_a_plug_in_cannot_take_a_listed_name_before_its_owner_is_imported(
    package: Callable[..., str], shelf: Callable[..., Registry]
) -> None:
    found = shelf(package("owner", "components: {loss: {.parts: [good]}}", parts=GOOD))
    with pytest.raises(ConfigError) as error:
        found.register("loss", "good")(build_net)
    assert str(error.value).startswith("loss 'good' is already registered at owner.parts; ")
    assert "owner.parts" not in sys.modules


def test_a_runner_s_config_is_imported_from_where_the_zoo_says(
    package: Callable[..., str],
) -> None:
    name = package(
        "runs", "runner_configs: {a: '.conf:Config', b: '.conf:Nothing'}", conf="Config = int"
    )
    index = ComponentIndex(packages=[name])
    assert index.runner_config("a") is int
    assert index.runner_config("c") is None
    with pytest.raises(ConfigError, match=r"runner 'b' cannot be used: no Nothing from runs\.conf"):
        index.runner_config("b")


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "acme_vlm").mkdir(parents=True)
    (site / "acme_vlm" / "__init__.py").touch()
    (site / "acme_vlm" / "zoo.yaml").write_text(
        "components: {model: {.net: [acme_net]}}\nmodels: {acme_net: {types: {tiny: {}}}}"
    )
    (site / "acme_vlm" / "net.py").write_text(
        'from lavis_lite import registry\nregistry.register("model", "acme_net")(dict)'
    )
    for name, target in (("acme_vlm", "acme_vlm"), ("ghost", "ghost_package")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lavis_lite.projects]\n{name} = {target}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from lavis_lite import list_models, registry\n"
        "from lavis_lite.registry import cards\n"
        "print(list_models('acme*'), cards.types('acme_net'), 'acme_vlm.net' in sys.modules)\n"
        "print(registry.index.failures)\n"
        "print(registry.get('model', 'acme_net'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    listed, failures, found = done.stdout.splitlines()
    assert listed == "['acme_net'] ['tiny'] False"
    assert failures == str({"ghost_package": "ConfigError: no package 'ghost_package'"})
    assert found == "<class 'dict'>"


# ---- a researcher's own file


def test_a_plugin_file_is_run_once(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(f"with open({str(counter)!r}, 'a') as file: file.write('x')")
    load_plugin(str(plugin))
    load_plugin(str(tmp_path / "." / "my_plugin.py"))
    assert counter.read_text() == "x"


def test_two_plugin_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    before = set(sys.modules)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"WHICH = {folder!r}")
        load_plugin(str(tmp_path / folder / "same.py"))
    loaded = sorted(sys.modules[name].WHICH for name in set(sys.modules) - before)
    assert loaded == ["a", "b"]


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.py"
    with pytest.raises(ConfigError) as error:
        load_plugin(str(path))
    assert str(error.value) == f"plugin {str(path)!r} does not exist"
    with pytest.raises(ConfigError, match=r"plugin 'no\.such\.module' fails: ModuleNotFoundError"):
        load_plugin("no.such.module")


@pytest.mark.fault(51)
def test_a_plugin_that_fails_is_named_with_the_cause_and_can_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise ValueError('oh no')")
    with pytest.raises(ConfigError) as error:
        load_plugin(str(path))
    assert str(error.value) == f"plugin {str(path)!r} fails: ValueError: oh no"
    path.write_text("1 +")
    with pytest.raises(ConfigError, match="fails: SyntaxError"):
        load_plugin(str(path))
    path.write_text("FINE = True")
    load_plugin(str(path))


# ---- the kinds


def test_there_are_ten_kinds_and_each_states_its_contract() -> None:
    assert list(registry_module.kinds()) == [
        "model",
        "vision_encoder",
        "text_backbone",
        "language_model",
        "loss",
        "dataset",
        "processor",
        "metric",
        "runner",
        "scorer",
        "workload",
    ]
    assert all(len(text.split()) > 15 for text in registry_module.kinds().values())
    assert registry_module.everything.kinds["loss"].runtime == ("model",)


def test_a_package_adds_commands_that_are_imported_when_they_are_called(
    package: Callable[..., str],
) -> None:
    name = package(
        "tidy",
        "commands: {tidy: {call: '.own:main', help: put in order}, lost: {call: '.no:x', help: y}}",
        own="def main(words): return len(words)",
    )
    index = ComponentIndex(packages=[name])
    assert index.commands() == {"tidy": "put in order", "lost": "y"}
    assert "tidy.own" not in sys.modules
    call = index.command("tidy")
    assert call is not None
    assert call(["a", "b"]) == 2
    assert index.command("other") is None
    with pytest.raises(ConfigError, match=r"command 'lost' cannot be used: no x from tidy\.no"):
        index.command("lost")


def test_a_command_without_help_breaks_its_package_alone(package: Callable[..., str]) -> None:
    index = ComponentIndex(packages=[package("bare", "commands: {bare: {call: '.own:main'}}")])
    assert index.commands() == {}
    assert "`call` and `help` are expected" in index.failures["bare"]
