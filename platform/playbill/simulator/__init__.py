"""A streaming service in numpy whose truth is known, writing the canonical tables. Its law is in `simulator.law`."""

from playbill.simulator.ab import ab_test, compare
from playbill.simulator.asked import Asked, Slates
from playbill.simulator.catalogue import Catalogue, make_catalogue
from playbill.simulator.policies import Policy, load_policy
from playbill.simulator.run import Outcome, simulate
from playbill.simulator.spec import CountrySpec, WorldSpec, read_spec
from playbill.simulator.world import World
from playbill.specs.plugins import POLICIES

__all__ = [
    "POLICIES",
    "Asked",
    "Catalogue",
    "CountrySpec",
    "Outcome",
    "Policy",
    "Slates",
    "World",
    "WorldSpec",
    "ab_test",
    "compare",
    "load_policy",
    "make_catalogue",
    "read_spec",
    "simulate",
]
