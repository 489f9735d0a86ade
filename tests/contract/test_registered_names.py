"""Every name that YAML or the command line may use stands for something that can be imported."""

from __future__ import annotations

import importlib

import pytest

from playbill.registry import Plugin, Registry

ROOMS = ("evaluation.ceiling", "cli.commands", "sources.registry")
SPECS = ("measures", "canvas", "head", "label", "context", "network", "model")
MODULES = (
    *(f"playbill.{name}" for name in ROOMS),
    *(f"playbill.definitions.specs.{name}" for name in SPECS),
    "playbill_lab.simulator.policies.table",
)


def registered() -> list[tuple[str, Plugin]]:
    modules = [importlib.import_module(name) for name in MODULES]
    registries = {id(value): value for one in modules for value in vars(one).values() if isinstance(value, Registry)}
    return [(f"{one.kind} {name}", one[name]) for one in registries.values() for name in one.names()]


PLUGINS = registered()


def test_all_tables_are_read() -> None:
    assert len(PLUGINS) > 60
    assert len({name.rsplit(" ", 1)[0] for name, _ in PLUGINS}) >= 12


@pytest.mark.parametrize("plugin", [plugin for _, plugin in PLUGINS], ids=[name for name, _ in PLUGINS])
def test_it_and_its_options_can_be_loaded(plugin: Plugin) -> None:
    assert plugin.load() is not None
    plugin.load_options()
