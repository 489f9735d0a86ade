import pytest

from playbill.versions.tracking.runs import from_mlflow, to_mlflow


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("home/ndcg@10", "home/ndcg_at_10"),
        ("home/ndcg@10/low", "home/ndcg_at_10/low"),
        ("home/ndcg@10/minus=popular_7d", "home/ndcg_at_10/minus:popular_7d"),
        ("home/ndcg@10/country=US-MN", "home/ndcg_at_10/country:US-MN"),
        ("train/loss", "train/loss"),
    ],
)
def test_metric_names_are_spelled_in_mlflows_alphabet_and_back(ours: str, theirs: str) -> None:
    assert to_mlflow(ours) == theirs
    assert from_mlflow(theirs) == ours


def test_names_that_differ_stay_apart() -> None:
    names = ["home/hr@10/tenure=<7d", "home/hr@10/tenure=>7d", "home/hr@10/tenure=7d+", "home/hr@10/tenure=7d"]
    assert len({to_mlflow(name) for name in names}) == len(names)
