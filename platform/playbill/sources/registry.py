"""The table of sources. Outside packages add their own through the entry-point group `playbill.sources`."""

from __future__ import annotations

from playbill.registry import Plugin, Registry

_MOVIELENS = "playbill.sources.options:MovieLensOptions"
_KUAIRAND = "playbill.sources.options:KuaiRandOptions"

SOURCES = Registry(
    "source",
    "playbill.sources",
    {
        "movielens_100k": Plugin("playbill.sources.movielens:MovieLens100K", _MOVIELENS),
        "movielens_1m": Plugin("playbill.sources.movielens:MovieLens1M", _MOVIELENS),
        "movielens_20m": Plugin("playbill.sources.movielens:MovieLens20M", _MOVIELENS),
        "movielens_32m": Plugin("playbill.sources.movielens:MovieLens32M", _MOVIELENS),
        "kuairand": Plugin("playbill.sources.kuairand.source:KuaiRandPure", _KUAIRAND),
        "kuairand_1k": Plugin("playbill.sources.kuairand.source:KuaiRand1K", _KUAIRAND),
        "kuairand_27k": Plugin("playbill.sources.kuairand.source:KuaiRand27K", _KUAIRAND),
        "parquet": Plugin("playbill.sources.tabular.source:OwnFiles", "playbill.sources.options:ParquetOptions"),
        "sql": Plugin("playbill.sources.tabular.own_database:OwnDatabase", "playbill.sources.options:SqlOptions"),
    },
)
"""Every source by name. An implementation is built with its options and has the methods of `Source`."""
