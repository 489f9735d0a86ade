"""A project from Python: what the `playbill` command does, and no more.

Importing this room imports neither torch nor Feast, Ray or MLflow; what needs them does when it is called.
"""

from playbill.project.face import Project

__all__ = ["Project"]
