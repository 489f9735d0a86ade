"""Types of Feast's arguments are checked where definitions are read; importing Feast compiles none of these checks."""

import subprocess
import sys
import warnings
from functools import cached_property

import pytest
from typeguard import TypeCheckError, typechecked

from playbill.features.feast_import import late, types_checked

FRESH = """
import typeguard
import typeguard._decorators as decorators
compiled, instrument = [], decorators.instrument
decorators.instrument = lambda function: compiled.append(function.__qualname__) or instrument(function)
from playbill.features.feast_import import import_feast, types_checked
import_feast()
import feast
assert not compiled, compiled
feast.Field(name="plays", dtype=feast.types.Float32).name
assert not compiled, compiled
with types_checked():
    try:
        feast.FeatureView(name="plays", ttl="7d", source=None)
    except typeguard.TypeCheckError as error:
        print(compiled, error)
"""


class Base:
    def __init__(self, name: str):
        self.name = name

    @property
    def length(self) -> int:
        return self.name  # of the wrong type on purpose

    @classmethod
    def made(cls, name: str):
        return cls(name)

    @staticmethod
    def twice(number: int) -> int:
        return 2 * number

    @cached_property
    def letters(self) -> list:
        return list(self.name)

    def old(self) -> str:
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return self.name


Checked = late(Base, typechecked)


def test_nothing_is_checked_where_definitions_are_used():
    made = Checked.made(3)
    assert (made.name, made.length, Checked.twice("a")) == (3, 3, "aa")


@pytest.mark.parametrize(
    "call", [lambda: Checked(3), lambda: Checked.made(3), lambda: Checked.twice("a"), lambda: Checked("a").length]
)
def test_everything_is_checked_where_definitions_are_read(call):
    with types_checked(), pytest.raises(TypeCheckError):
        call()
    with types_checked():
        assert Checked.made("ab").letters == ["a", "b"]


def test_a_warning_stays_one_of_the_class_that_gives_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module=r"playbill\.")
        assert Checked("a").old() == "a"


def test_importing_feast_compiles_no_checks_and_a_definition_is_still_checked():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled, _, message = done.stdout.partition("] ")
    assert compiled == "['FeatureView.__init__'"
    assert "ttl" in message
