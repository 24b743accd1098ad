"""What a restoration will cost before it is made, and the tiles that fit into a given memory.

evaluations     which parts of the networks each step runs
costs           bytes and operations of those parts, from a model folder's configurations alone
plan            dtype, tiles, memory and time, each with its reason
advice          which dtype and storage would fit where these do not
"""

from supir.planner.advice import advice
from supir.planner.costs import Costs, Networks, networks_of, on_meta
from supir.planner.evaluations import Evaluation, evaluations
from supir.planner.plan import GIGABYTE, Passes, Plan, make_plan, picked, working_multiple
from supir.planner.rate import measured_rate

__all__ = [
    "GIGABYTE",
    "Costs",
    "Evaluation",
    "Networks",
    "Passes",
    "Plan",
    "advice",
    "evaluations",
    "make_plan",
    "measured_rate",
    "networks_of",
    "on_meta",
    "picked",
    "working_multiple",
]
