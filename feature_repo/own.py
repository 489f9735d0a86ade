"""Features of your own go here, or into files beside this one: docs/guide/features.md, "Adding a feature".

What follows is one of ten lines. Take the signs away, build, apply, and name the service in a model's definition:
`features: everycanvas_own`.
"""

# import polars as pl
# from members import member
# from playbill.features.own import Mean, event_view, extend
# from services import everycanvas_v3
#
# member_evenings = event_view(
#     name="member_evenings",
#     entity=member,
#     actions=["play"],
#     values={"evening_share": Mean(pl.col("event_at").dt.hour() >= 18, last=20)},
#     description="Share of the last 20 plays that began in the evening, by UTC.",
# )
# everycanvas_own = extend(everycanvas_v3, "everycanvas_own", member_evenings)
