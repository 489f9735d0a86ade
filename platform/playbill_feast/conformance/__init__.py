"""Test suites that anybody's Feast store can inherit.

They are `offline.OfflineStoreConformance` and `online.OnlineStoreConformance`; `playbill.testing` re-exports both.
A suite is a pytest class. It builds a small Feast repository of its own in a temporary folder, once per class,
and asks for nothing but Feast's public interface. Needs the extras `features` and `testing`.
"""
