"""Vocabularies only grow, and say 0 for what they do not know."""

import os

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import DataError, IntegrityError
from playbill.tables import Vocabulary
from playbill.tables.vocabulary import SHORT, VocabularyFolder

words = st.lists(st.one_of(st.none(), st.text(max_size=4)), max_size=12)


@given(st.lists(words, max_size=6))
def test_indices_never_change(loads):
    vocabulary = Vocabulary("title")
    for load in loads:
        before = vocabulary.entries
        added = vocabulary.grow(load)
        assert vocabulary.entries[: len(before)] == before
        assert added == len(vocabulary.entries) - len(before)
        assert vocabulary.size == len(vocabulary) + 1
        codes = vocabulary.encode(load)
        assert vocabulary.decode(codes) == [word or "" for word in load]


@given(words, words)
def test_both_ways_of_encoding_agree(known, requested):
    vocabulary = Vocabulary("title")
    vocabulary.grow(known)
    codes = vocabulary.encode(requested)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, vocabulary.encode(pl.Series(requested, dtype=pl.String)))
    long = pl.Series([*requested, *[None] * SHORT], dtype=pl.String)
    np.testing.assert_array_equal(codes, vocabulary.encode(long)[: len(requested)])
    np.testing.assert_array_equal(
        codes == 0, [word is None or word == "" or word not in vocabulary for word in requested]
    )


@settings(deadline=None)  # every load waits for the disk
@given(st.lists(words, max_size=4))
def test_saved_vocabularies_only_grow(tmp_path_factory, loads):
    folder = VocabularyFolder(tmp_path_factory.mktemp("vocabularies"))
    before: tuple[str, ...] = ()
    for load in loads:
        folder.grow("title", pl.Series(load, dtype=pl.String))
        entries = folder.load("title").entries
        assert entries[: len(before)] == before
        before = entries


def test_new_ids_come_in_numeric_order(tmp_path):
    folder = VocabularyFolder(tmp_path / "vocabularies")
    assert folder.grow("title", pl.Series(["10", "9", "100", "9"])) == 3
    assert folder.load("title").entries == ("9", "10", "100")
    assert folder.grow("title", pl.Series(["1", "10"])) == 1
    assert folder.load("title").entries == ("9", "10", "100", "1")


def test_a_vocabulary_survives_a_list_and_refuses_repeats():
    vocabulary = Vocabulary("genre", ["a", "b"])
    assert Vocabulary.from_list("genre", vocabulary.to_list()).entries == ("a", "b")
    with pytest.raises(DataError):
        Vocabulary("genre", ["a", "a"])
    with pytest.raises(IndexError):
        vocabulary.decode([3])


def test_the_leftover_of_a_killed_save_is_ignored(tmp_path):
    folder = VocabularyFolder(tmp_path)
    folder.grow("title", pl.Series(["a"]))
    (tmp_path / "title.12ab.writing").write_bytes(b"half")
    assert folder.load("title").entries == ("a",)


def test_tables_grow_them_and_a_refused_load_does_not(load, filled, titles, events):
    assert filled.vocabulary("title").entries == ("1", "2", "10")
    assert filled.vocabulary("member").entries == ("a", "b", "c")
    assert filled.vocabulary("genre").entries == ("Drama", "Comedy")
    assert filled.vocabulary("country").entries == ("SE", "ZZ")
    assert filled.vocabulary("device").size == 1
    with pytest.raises(DataError):
        load(filled, titles.with_columns(title_id=pl.lit("new")), events)
    assert "new" not in filled.vocabulary("title")
    with filled.replace() as writer:
        writer.write("titles", titles.with_columns(title_id=pl.col("title_id") + "5"))
        writer.write("interactions", events.with_columns(title_id=pl.col("title_id") + "5"))
    assert filled.vocabulary("title").entries == ("1", "2", "10", "15", "25", "105")


@pytest.mark.parametrize("suffix", ["parquet", "sha256"])
def test_no_flipped_bit_is_read_as_another_vocabulary(tmp_path, suffix):
    folder = VocabularyFolder(tmp_path)
    folder.grow("title", pl.Series([f"t{number}" for number in range(50)]))
    file = tmp_path / f"title.{suffix}"
    whole, rng = file.read_bytes(), np.random.default_rng(3)
    for bit in rng.choice(8 * len(whole), size=40, replace=False).tolist():
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        file.write_bytes(raw)
        for use in (lambda: folder.load("title"), lambda: folder.grow("title", pl.Series(["new"]))):
            with pytest.raises(IntegrityError, match=r"vocabulary 'title' is damaged: .*title.parquet was changed"):
                use()
    file.write_bytes(whole)
    assert len(folder.load("title")) == 50


def test_a_kill_between_a_digest_and_its_vocabulary_leaves_one_that_is_read(tmp_path, monkeypatch):
    folder = VocabularyFolder(tmp_path)
    folder.grow("title", pl.Series(["a"]))

    class Killed(BaseException):
        pass

    replace = os.replace

    def killed(beside, path):
        if path.suffix == ".parquet":
            raise Killed
        replace(beside, path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            folder.grow("title", pl.Series(["b"]))
    assert len((tmp_path / "title.sha256").read_text().split()) == 2
    assert folder.load("title").entries == ("a",)
    assert folder.grow("title", pl.Series(["b"])) == 1
    assert folder.load("title").entries == ("a", "b")


def test_a_vocabulary_of_an_earlier_release_has_no_digest_and_gets_one(tmp_path):
    folder = VocabularyFolder(tmp_path)
    folder.grow("title", pl.Series(["a"]))
    (tmp_path / "title.sha256").unlink()
    assert folder.load("title").entries == ("a",)
    folder.grow("title", pl.Series(["b"]))
    assert (tmp_path / "title.sha256").is_file()
