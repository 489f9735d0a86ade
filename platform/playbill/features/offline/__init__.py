"""The parts of the as-of offline store. Importing this imports none of them: workers of the Ray engine need no Feast."""
