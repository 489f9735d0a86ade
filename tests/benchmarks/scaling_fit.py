"""The scaling law `P = P0 - a N^-b`: its fit to sizes of a network, what the fit predicts, and its picture.

Letters: S sizes, R draws of members.
"""

import warnings
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

mpl.use("Agg")
from matplotlib import pyplot as plt

FASTEST = 3.0  # largest b: a curve that bends more sharply is a step
WIDE = 1.0  # P0 is identified where its interval is no wider than so many times the spread of what was measured
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Law:
    """One fit.

    Args:
        p0: Ceiling that no size reaches.
        a: Scale, for N in parameters.
        b: Exponent.
        errors: Standard errors of the three by least squares; infinite where the data does not fix them.
    """

    p0: float
    a: float
    b: float
    errors: tuple[float, float, float] = (np.inf, np.inf, np.inf)

    @classmethod
    def fit(cls, sizes, quality):
        """Fit by least squares, from several starts.

        Args:
            sizes: [S] parameters.
            quality: [S] the metric.

        Raises:
            ValueError: Fewer than three sizes: the law has three numbers.
        """
        sizes, quality = np.asarray(sizes, np.float64), np.asarray(quality, np.float64)
        if len(sizes) < 3:
            raise ValueError(f"a law of three numbers needs three sizes, got {len(sizes)}")
        middle = float(np.exp(np.log(sizes).mean()))  # N is scaled to about 1, so that a and b are of one magnitude
        best = None
        for start in (0.1, 0.3, 1.0):
            top = min(1.0, float(quality.max()) + 0.02)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)  # of no error bars: those are then infinite
                found, covariance = curve_fit(
                    law,
                    sizes / middle,
                    quality,
                    p0=(top, max(top - float(np.median(quality)), 1e-3), start),
                    bounds=((0.0, 0.0, 0.0), (1.0, 10.0, FASTEST)),
                    max_nfev=20_000,
                )
            missed = float(np.square(law(sizes / middle, *found) - quality).sum())
            if best is None or missed < best[0]:
                best = (missed, found, covariance)
        p0, scaled, b = best[1].tolist()
        errors = np.sqrt(np.diag(best[2]))
        return cls(p0, scaled * middle**b, b, (float(errors[0]), float(errors[1]) * middle**b, float(errors[2])))

    def at(self, sizes):
        """Return [S] what it says of sizes."""
        return law(np.asarray(sizes, np.float64), self.p0, self.a, self.b)


def law(sizes, p0, a, b):
    """Return `p0 - a sizes^-b`."""
    return p0 - a * sizes**-b


def fitted(sizes, means, drawn):
    """Return the fit of all sizes, what one of all but the largest says of the largest, and intervals over draws.

    Args:
        sizes: [S] parameters, ascending.
        means: [S] the metric.
        drawn: [R, S] the metric over draws of members, the same draws for every size.
    """
    whole, without = Law.fit(sizes, means), Law.fit(sizes[:-1], means[:-1])
    laws = [Law.fit(sizes, row) for row in drawn]
    predictions = np.array([Law.fit(sizes[:-1], row[:-1]).at(sizes[-1:])[0] for row in drawn])
    ceilings = np.array([one.p0 for one in laws])
    low, high = np.quantile(ceilings, QUANTILES)
    predicted = float(without.at(sizes[-1:])[0])
    return {
        "p0": whole.p0,
        "p0_interval": [float(low), float(high)],
        "p0_identified": bool(high < 1.0 and high - low <= WIDE * (max(means) - min(means))),
        "a": whole.a,
        "a_interval": np.quantile([one.a for one in laws], QUANTILES).tolist(),
        "b": whole.b,
        "b_interval": np.quantile([one.b for one in laws], QUANTILES).tolist(),
        "standard_errors": [error if np.isfinite(error) else None for error in whole.errors],
        "residuals": (np.asarray(means) - whole.at(sizes)).tolist(),
        "predicted_largest": predicted,
        "predicted_largest_interval": np.quantile(predictions, QUANTILES).tolist(),
        "measured_largest": float(means[-1]),
        "prediction_error": predicted / float(means[-1]) - 1.0,
        "prediction_error_interval": np.quantile(predictions / drawn[:, -1] - 1.0, QUANTILES).tolist(),
    }


def draw(result, path):
    """Draw sizes with their fits, and the sweep of context beside them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    sizes = [one["parameters"] for one in result["sizes"]]
    ends = np.array([one["mrr"] for one in result["sizes"]])
    left.errorbar(sizes, ends[:, 0], np.abs(ends[:, 1:].T - ends[:, 0]), fmt="o", capsize=3, label="measured")
    line = np.geomspace(sizes[0], sizes[-1] * 4, 100)
    whole, without = Law(result["p0"], result["a"], result["b"]), Law.fit(sizes[:-1], ends[:-1, 0])
    left.plot(line, whole.at(line), label=f"{result['p0']:.3f} - {result['a']:.2f} N^-{result['b']:.2f}")
    left.plot(line, without.at(line), "--", label="without the largest")
    left.set_xscale("log")
    left.set_xlabel("parameters that are no embedding")
    left.set_ylabel("MRR")
    left.set_title("next play of MovieLens-1M, by size")
    left.legend()
    if result["context"]:
        names = [one["context"] for one in result["context"]]
        values = np.array([one["mrr"] for one in result["context"]])
        places = np.arange(len(names))
        right.errorbar(values[:, 0], places, xerr=np.abs(values[:, 1:].T - values[:, 0]), fmt="o", capsize=3)
        right.set_yticks(places, names)
        right.invert_yaxis()
        right.set_xlabel("MRR")
        right.set_title("next long view of KuaiRand, by what is known")
    figure.savefig(path)
    plt.close(figure)
