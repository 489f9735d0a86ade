"""Text encoders: what each gram of a synopsis says, as a vector; a synopsis is the sum of its grams at length 1.

An encoder is fitted on the titles of training and leaves a table [buckets, E] in the network's weights, so that serving
needs neither the package it came from nor a pickle, and titles that come later are encoded as those of training were.
Axis letters: T titles, G grams, E width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from playbill.arrays import Floats32, Ints64
from playbill.definitions.specs.model import LsaOptions, TextOptions

TextEncoder = Callable[[Ints64, Ints64, int, TextOptions, int], Floats32]
"""Called with (grams, offsets, buckets, options, seed): flat ids [G] and where each of T synopses begins."""


def lsa(grams: Ints64, offsets: Ints64, buckets: int, options: LsaOptions, seed: int) -> Floats32:
    """Fit latent semantic analysis (Deerwester et al., JASIS 1990) and return [buckets, E] what each gram says.

    The truncated SVD of tf-idf weights: words that stand in texts alike get vectors alike, which a few thousand plays
    could not teach. Directions beyond the rank of the texts are zero. Seconds for 10,000 synopses.
    """
    text = np.repeat(np.arange(len(offsets)), np.diff(offsets, append=len(grams)))
    counts = sparse.coo_matrix((np.ones(len(grams)), (text, grams)), (len(offsets), buckets)).tocsr()
    found = np.zeros((buckets, options.width), np.float32)
    rank = min(options.width, int((np.diff(counts.indptr) > 0).sum()) - 1, len(np.unique(grams)) - 1)
    if rank < 1:
        return found
    weights = TfidfTransformer(sublinear_tf=True)
    svd = TruncatedSVD(rank, random_state=seed % 2**32).fit(weights.fit_transform(counts))
    found[:, :rank] = svd.components_.T * weights.idf_[:, None]
    return found
