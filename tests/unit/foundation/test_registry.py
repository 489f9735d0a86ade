from importlib.metadata import EntryPoint

import pytest

import playbill.registry
from playbill.errors import DuplicateNameError, UnknownNameError
from playbill.registry import Plugin, Registry

OUTSIDE = Plugin("collections:OrderedDict")


def registry():
    return Registry("trunk", "playbill.test_trunks", {"plain": Plugin("json:dumps", options="json:loads")})


def test_a_plugin_is_loaded_on_use():
    import json

    plugin = registry()["plain"]
    assert plugin.load() is json.dumps
    assert plugin.load_options() is json.loads


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown trunk 'plian'\. Did you mean 'plain'"):
        registry()["plian"]


def test_outside_packages_add_names_by_entry_point(monkeypatch):
    point = EntryPoint("fancy", f"{__name__}:OUTSIDE", "playbill.test_trunks")
    monkeypatch.setattr(EntryPoint, "load", lambda self: OUTSIDE)
    monkeypatch.setattr(playbill.registry, "entry_points", lambda group: [point])
    assert registry().names() == ("fancy", "plain")
    assert registry()["fancy"] is OUTSIDE


def test_a_name_is_claimed_once(monkeypatch):
    point = EntryPoint("plain", "elsewhere:thing", "playbill.test_trunks")
    monkeypatch.setattr(playbill.registry, "entry_points", lambda group: [point])
    with pytest.raises(DuplicateNameError, match="claimed by both json:dumps and elsewhere:thing"):
        registry().names()
