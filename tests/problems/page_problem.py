"""A home page to score: a network with random weights over a catalogue of any size, and one member's page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import torch

from playbill.datasets import Encoder, EncoderState, Request
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.models import HeadConfig, Network, NetworkConfig
from playbill.ranking.blend import head_losses
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer

AT = datetime(2024, 3, 4, 10, 30, tzinfo=UTC)
HEADS = {
    "discovery_play": "softmax",
    "continue_play": "softmax",
    "next_title": "softmax",
    "completion": "bce",
    "thumbs_up": "bce",
    "thumbs_down": "bce",
    "my_list_add": "bce",
    "remind_me": "bce",
}
BLENDS = (
    {"discovery_play": 1.0},
    {"discovery_play": 1.0, "thumbs_up": 0.3},
    {"discovery_play": 1.0, "thumbs_up": 0.3, "thumbs_down": -0.1},
    {"continue_play": 1.0},
    {"completion": 1.0, "thumbs_up": 0.5},
    {"my_list_add": 1.0},
    {"discovery_play": 1.0, "similarity": 10.0},
)
SNAPSHOT = tuple(f"popularity__f{number}" for number in range(11))
NUMERIC = tuple(f"activity__f{number}" for number in range(13))
GENRES = tuple(f"genre{number}" for number in range(18))
ROWS = tuple(f"row{number}" for number in range(12))
DEVICES, LANGUAGES, COUNTRIES = ("tv", "phone", "tablet"), ("en", "es", "de"), ("US", "DE", "BR")


class Features:
    """Title features drawn anew for every moment."""

    def title_snapshots(self, service: str, moments: list[datetime], title_ids: tuple[str, ...]) -> SimpleNamespace:
        shape = len(title_ids), len(SNAPSHOT)
        draws = [np.random.default_rng(int(moment.timestamp())).gamma(2.0, 2.0, shape) for moment in moments]
        values = np.stack(draws).astype(np.float32)
        categorical = pl.DataFrame({"title_id": title_ids})
        return SimpleNamespace(columns=SNAPSHOT, values=values, categorical=categorical)


@dataclass(frozen=True)
class Page:
    """One page: what is asked for each row, how its heads are blended, and what it may show.

    Args:
        requests: One per row, all over one history.
        blends: Weights of each row.
        candidates: [rows, titles].
    """

    requests: tuple[Request, ...]
    blends: tuple[dict[str, float], ...]
    candidates: np.ndarray


def make_scorer(folder: Path, titles: int = 10_000, seed: int = 1, **trunk: int) -> Scorer:
    """Write a bundle with random weights and return its scorer; the trunk has its default sizes unless told."""
    names = tuple(f"t{number:05d}" for number in range(titles))
    resolved, encoder = _resolved(), Encoder(_state(names))
    sizes = encoder.network_sizes()
    heads = tuple(HeadConfig(name=name, loss=loss) for name, loss in HEADS.items())
    context = sizes["context"] | {"title_crossing": True}
    config = NetworkConfig.model_validate({**sizes, "context": context, "trunk": trunk, "heads": heads})
    torch.manual_seed(seed)
    network = Network(config)
    for name, parameter in network.named_parameters():
        if not name.endswith("match"):
            torch.nn.init.normal_(parameter, std=0.05)
    plays = np.arange(titles + 1)
    write_bundle(folder, resolved=resolved, encoder=encoder, config=config, weights=network.state_dict(), plays=plays)
    frame = title_rows(names)
    return Scorer(read_bundle(folder), frame, launches(names), Features(), as_of=AT)


def losses(scorer: Scorer) -> dict[str, str]:
    """Return the loss of every head, as blends read them."""
    return head_losses(scorer.bundle.resolved)


def make_page(scorer: Scorer, rows: int = 20, events: int = 200, seed: int = 5) -> Page:
    """Make a page: every fifth row is asked as `more_like_this` with a source title, the others as `home`."""
    rng = np.random.default_rng(seed)
    titles = scorer.title_ids
    past = _past(titles, events, rng)
    facts = {name: float(rng.gamma(2.0, 2.0)) for name in NUMERIC}
    base = Request("home", AT, "m", country="US", device="tv", language="en", history=past, features=facts)
    requests, blends = [], []
    for row in range(rows):
        similar = row % 5 == 4
        source = titles[int(rng.integers(len(titles)))] if similar else None
        requests.append(_of_row(base, row, source))
        blends.append(BLENDS[-1] if similar else BLENDS[row % (len(BLENDS) - 1)])
    shares = rng.choice([0.05, 0.5, 0.9], size=(rows, 1))
    return Page(tuple(requests), tuple(blends), rng.random((rows, len(titles))) < shares)


def _of_row(base: Request, row: int, source: str | None) -> Request:
    canvas = "home" if source is None else "more_like_this"
    return replace(base, canvas=canvas, source_title_id=source, row=ROWS[row % len(ROWS)], row_position=row)


def _past(titles: tuple[str, ...], events: int, rng: np.random.Generator) -> pl.DataFrame:
    chosen = [titles[place] for place in rng.integers(0, len(titles), events)]
    return pl.DataFrame(
        {
            "member_id": ["m"] * events,
            "seq": range(events),
            "event_at": [AT - timedelta(hours=events - place) for place in range(events)],
            "action": rng.choice(["play", "thumbs_up"], events, p=[0.9, 0.1]).tolist(),
            "title_id": chosen,
            "canvas": rng.choice(["home", "more_like_this"], events).tolist(),
            "device": rng.choice(DEVICES, events).tolist(),
            "language": rng.choice(LANGUAGES, events).tolist(),
            "duration_s": rng.gamma(2.0, 600.0, events).astype(np.float32),
        },
        schema_overrides={"event_at": pl.Datetime("us", "UTC")},
    )


def title_rows(names: tuple[str, ...]) -> pl.DataFrame:
    """Return the canonical titles of these names."""
    count = len(names)
    return pl.DataFrame(
        {
            "title_id": names,
            "name": [f"Word{name} of the Name" for name in names],
            "names": [None] * count,
            "kind": ["film"] * count,
            "genres": [[GENRES[place % 18], GENRES[(place // 18) % 18]] for place in range(count)],
            "release_date": [AT] * count,
        },
        schema_overrides={
            "names": pl.List(pl.Struct({"language": pl.String, "name": pl.String})),
            "release_date": pl.Datetime("us", "UTC"),
        },
    )


def launches(names: tuple[str, ...]) -> pl.DataFrame:
    """Return availability since a month before the page."""
    return pl.DataFrame(
        {"title_id": names, "country": "*", "available_from": AT - timedelta(days=30)},
        schema_overrides={"available_from": pl.Datetime("us", "UTC")},
    )


def _resolved() -> ResolvedModel:
    contexts = {
        "home": ("member", "country", "device", "language", "hour_of_week"),
        "more_like_this": ("member", "source_title", "country", "device", "language", "hour_of_week"),
    }
    canvases = {
        name: CanvasSpec.model_validate(
            {"name": name, "version": 1, "context": context, "blend": BLENDS[0], "metric": "discovery_play"}
        )
        for name, context in contexts.items()
    }
    heads = {name: {"label": name, "loss": loss} for name, loss in HEADS.items()}
    labels = {
        name: LabelSpec.model_validate({"name": name, "version": 1, "from": {"action": "play"}}) for name in HEADS
    }
    model = {"name": "m", "version": 1, "features": "f", "canvases": list(canvases), "heads": heads}
    return ResolvedModel(model=ModelSpec.model_validate(model), labels=labels, rewards={}, canvases=canvases, rows={})


def _state(names: tuple[str, ...]) -> EncoderState:
    return EncoderState(
        history_length=200,
        merge=True,
        titles=names,
        actions=("play", "thumbs_up"),
        canvases=("home", "more_like_this"),
        countries=COUNTRIES,
        devices=DEVICES,
        languages=LANGUAGES,
        genres=GENRES,
        kinds=("film",),
        original_languages=(),
        year_edges=(1990,),
        metadata=("genres", "kind", "name", "release_year"),
        snapshot_hours=24,
        canvas_fields={
            "home": ("member", "country", "device", "language", "hour_of_week"),
            "more_like_this": ("member", "source_title", "country", "device", "language", "hour_of_week"),
        },
        service="f",
        service_version="v",
        numeric=NUMERIC,
        title_snapshot=SNAPSHOT,
        rows=ROWS,
        row_positions=True,
    )
