"""Countries side by side on a real Ray cluster: the same weights as one after the other, and what goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures import country_gap
from playbill.errors import ServiceError, StateError
from playbill.models import TitleInputs
from playbill.training.country_adapters import FrozenNetwork, country_examples, learn_country
from playbill.training.side_by_side import side_by_side


def halve(shared: int, item: int) -> int:
    if item % 2:
        raise StateError(f"{item} is odd, in {shared}")
    return item // 2


def die(shared: int, item: int) -> int:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_workers_learn_what_one_process_learns_and_pass_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from playbill.ray_cluster import connected

    ray.cloudpickle.register_pickle_by_value(__import__(__name__))  # workers have no tests on their path
    data = country_gap.data()
    frozen = FrozenNetwork(country_gap.network(data), TitleInputs.from_arrays(data.titles), country_gap.SETTINGS)

    def examples() -> object:
        return country_examples(data, (1, 2), country_gap.SETTINGS)

    alone = dict(own for _, own in side_by_side(learn_country, frozen, examples()))
    with connected("local", local={"num_cpus": 2}):
        together = dict(own for _, own in side_by_side(learn_country, frozen, examples(), workers=2))
        assert sorted(side_by_side(halve, 1, range(0, 20, 2), workers=2)) == [(place, place) for place in range(10)]
        with pytest.raises(StateError, match="3 is odd, in 7"):
            list(side_by_side(halve, 7, [0, 3, 4, 6], workers=2))
        monkeypatch.setattr("playbill.training.side_by_side.RETRIES", 0)  # each starts a worker, which takes seconds
        with pytest.raises(ServiceError, match="given up after 0 more attempts"):
            list(side_by_side(die, 7, [0], workers=2))
    assert together.keys() == alone.keys() == {1, 2}
    for index, path in alone.items():
        for mine, theirs in zip(path, together[index], strict=True):
            for name, values in mine.items():
                np.testing.assert_allclose(theirs[name], values, rtol=1e-5, atol=1e-6)
