"""Importing this lets a script of this folder import `fixtures`, the package beside the folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
