"""A streaming service in numpy whose truth is known, writing the canonical tables; its law: `world.behaviour_model`."""

from playbill_lab.simulator.engine.run import RunOutcome, simulate
from playbill_lab.simulator.policies.policies import Policy, load_policy
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.policies.table import POLICIES
from playbill_lab.simulator.world.catalogue import WorldCatalogue, make_catalogue
from playbill_lab.simulator.world.spec import CountrySpec, WorldSpec, read_spec
from playbill_lab.simulator.world.world import World

__all__ = [
    "POLICIES",
    "CountrySpec",
    "Policy",
    "PolicyRequest",
    "RunOutcome",
    "Slates",
    "World",
    "WorldCatalogue",
    "WorldSpec",
    "load_policy",
    "make_catalogue",
    "read_spec",
    "simulate",
]
