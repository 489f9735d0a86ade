"""What arms reach on one log, or on several: rows with intervals over members, in all and by country."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill.continual.countries.country_scores import interval_of


@dataclass
class Measured:
    """NDCG@10 of a test fold's requests by each arm, and what is known of the best that could be."""

    log: str
    seed: int
    frame: pl.DataFrame  # [N] member_id and country
    countries: list  # those with members enough, the smallest first
    learnt_from: dict  # country -> members with events to learn from
    truth: np.ndarray | None = None  # [N] NDCG@10 of the best order
    alike: float | None = None  # lead of the best order over `global` where countries do not differ
    values: dict = field(default_factory=dict)  # arm -> [N]
    seconds: dict = field(default_factory=dict)

    def row(self, arm):
        """Return what an arm reaches, by country and in all."""
        by_country = [self._country(code, arm) for code in self.countries]
        small = self.frame["country"].is_in(self.countries[: len(self.countries) // 2]).fill_null(False)
        lowest = min(by_country, key=lambda one: one["change"][0], default={"country": None, "change": None})
        values, plain, here = self.values[arm], self.values["global"], small.to_numpy()
        found = {
            "log": self.log,
            "arm": arm,
            "seed": self.seed,
            "requests": len(values),
            "ndcg@10": round(float(values.mean()), 4),
            "over_global": self._change(arm, np.ones(len(values), bool)),
            "worst": {"country": lowest["country"], "change": lowest["change"]},
            "small": self._change(arm, here),
            "cpu_seconds": round(self.seconds[arm], 1),
            "countries": by_country,
        }
        if arm != "ensemble" and "ensemble" in self.values:
            ahead = self.values["ensemble"] - values
            found["ensemble_over_it"] = spread(interval_of(self.frame, ahead))
        if self.truth is not None:
            lead = float((self.truth - plain).mean())
            gap = lead - (self.alike or 0.0)
            found |= {"truth": round(float(self.truth.mean()), 4), "lead": round(lead, 4), "gap": round(gap, 4)}
            found["recovered"] = round(float((values - plain).mean()) / gap, 4) if gap > 0 else None
        return found

    def _country(self, code, arm):
        own = (self.frame["country"] == code).fill_null(False).to_numpy()
        means = {
            name: round(float(values[own].mean()), 4)
            for name, values in (("global", self.values["global"]), ("ndcg@10", self.values[arm]))
        }
        counts = {"requests": int(own.sum()), "members": self.learnt_from.get(code, 0)}
        return {"country": code} | counts | means | {"change": self._change(arm, own)}

    def _change(self, arm, own):
        change = (self.values[arm] - self.values["global"])[own]
        return spread(interval_of(self.frame.filter(pl.Series(own)), change)) if own.any() else [0.0, 0.0, 0.0]


def pooled(parts):
    """Return the logs of one kind as one: members of each are others than those of the rest."""
    arms = [arm for arm in parts[0].values if all(arm in part.values for part in parts)]
    frames = [
        part.frame.select(pl.format("{}/{}", pl.lit(part.log), "member_id").alias("member_id"), "country")
        for part in parts
    ]
    codes = [code for code in parts[0].countries if all(code in part.countries for part in parts)]
    known = all(part.truth is not None for part in parts)
    sizes = [len(part.frame) for part in parts]
    return Measured(
        log="+".join(part.log for part in parts),
        seed=parts[0].seed,
        frame=pl.concat(frames),
        countries=codes,
        learnt_from={code: round(np.mean([part.learnt_from.get(code, 0) for part in parts])) for code in codes},
        truth=np.concatenate([part.truth for part in parts]) if known else None,
        alike=float(np.average([part.alike or 0.0 for part in parts], weights=sizes)) if known else None,
        values={arm: np.concatenate([part.values[arm] for part in parts]) for arm in arms},
        seconds={arm: float(np.mean([part.seconds[arm] for part in parts])) for arm in arms},
    )


def spread(interval):
    """Return a mean with the ends of its interval."""
    return [round(float(end), 4) for end in (interval.value, interval.low, interval.high)]
