"""The parts of the as-of offline store. Imports none of them: workers of the Ray engine need no Feast."""
