"""What the package says it needs is what it imports, and what answers requests runs without Ray."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLATFORM = ROOT / "platform"
PACKAGES = [PLATFORM / name for name in ("playbill", "playbill_feast", "playbill_lab")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS_OF_ROOMS = {
    "cli": {"serving", "train"},
    "continual": {"train"},
    "datasets": {"ray"},
    "evaluation": {"train"},
    "features": {"features", "redis"},
    "foundation": {"train"},
    "metrics": {"train"},
    "models": {"models", "train"},  # what fits text encoders is for training alone
    "ranking": {"models"},
    "ray_cluster.py": {"ray"},
    "rewards": {"train"},
    "serving": {"serving"},
    "templates": {"features"},
    "testing": {"testing", "train"},
    "training": {"train", "ray"},
    "versions": {"tracking"},
    # Of the stores: torch makes tensors of a response, the suites are pytest classes.
    "playbill_feast": {"features", "redis", "ray", "models", "testing"},
    "playbill_lab": {"train", "testing"},
}
"""Extras beyond the base install that a room may import; the others import the base install alone."""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra, seen=frozenset()):
    """Return the distributions of an extra, those of the extras it names included."""
    found = set()
    for text in PROJECT["optional-dependencies"][extra]:
        name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", text).groups()
        if name == "playbill":
            for other in extras.split(","):
                assert other not in seen, f"{other} names itself"
                found |= declared(other, seen | {extra})
        else:
            found.add(normal(name))
    return found


BASE = {normal(re.match(r"[\w.-]+", text)[0]) for text in PROJECT["dependencies"]}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_declared_by_an_extra_of_its_room():
    distributions = packages_distributions()
    missing = []
    for path in PLATFORM.rglob("*.py"):
        package, room = path.relative_to(PLATFORM).parts[:2]
        room = room if package == "playbill" else package
        allowed = BASE.union(*(declared(extra) for extra in EXTRAS_OF_ROOMS.get(room, ())))
        for name in sorted(set(imported(path)) - sys.stdlib_module_names - {one.name for one in PACKAGES}):
            if not {normal(text) for text in distributions.get(name, [name])} & allowed:
                missing.append(f"{path.relative_to(PLATFORM)} imports {name}")
    assert not missing, "\n".join(missing)


def test_what_serves_and_what_trains_do_not_need_ray():
    assert "ray" not in declared("serving") | declared("train")
    assert declared("all") == declared("serving") | declared("train") | declared("ray") | declared("redis")


def test_ray_is_bounded_by_the_release_that_was_tested():
    (text,) = (text for text in PROJECT["optional-dependencies"]["ray"] if text.startswith("ray"))
    version = re.search(r"^ray==(\d+)\.(\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    major, minor = map(int, version.groups())
    assert text.endswith(f">={major}.{minor},<{major}.{minor + 1}")


def test_types_are_published():
    assert all((package / "py.typed").is_file() for package in PACKAGES)
    assert "Typing :: Typed" in PROJECT["classifiers"]
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]


def test_the_lock_file_names_the_public_index_alone():
    lock = (ROOT / "uv.lock").read_text()
    hosts = set(re.findall(r"https?://([^/\"]+)", lock))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}, hosts
    own = next(part for part in tomllib.loads(lock)["package"] if part["name"] == "playbill")
    assert set(own["optional-dependencies"]) == set(PROJECT["optional-dependencies"])
