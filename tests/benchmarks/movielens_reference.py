"""Compute the constants of `playbill_lab.simulator.world.members` from a log of MovieLens-1M.

Example: python tests/benchmarks/movielens_reference.py ml-1m/ratings.dat
The file is the publisher's `ratings.dat`, or a parquet file with columns user_id and movie_id.
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from playbill_lab.simulator.world.members import activity_relative, popularity_gini, popularity_shares


def read_log(path: Path) -> pl.DataFrame:
    if path.suffix == ".parquet":
        return pl.read_parquet(path, columns=["user_id", "movie_id"])
    content = path.read_text("latin-1").replace("::", "\t").encode()
    names = ["user_id", "movie_id", "rating", "timestamp"]
    return pl.read_csv(BytesIO(content), separator="\t", has_header=False, new_columns=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    log = read_log(parser.parse_args().file)
    titles = log.group_by("movie_id").len()["len"].to_numpy()
    members = log.group_by("user_id").len()["len"].to_numpy()
    found = {
        "POPULARITY_GINI": round(popularity_gini(titles), 4),
        "ACTIVITY_MEAN": round(float(members.mean()), 4),
        "ACTIVITY_MEDIAN": float(np.median(members)),
        "ACTIVITY_RELATIVE": [round(value, 4) for value in activity_relative(members).tolist()],
        "POPULARITY_SHARES": [round(value, 4) for value in popularity_shares(titles).tolist()],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
