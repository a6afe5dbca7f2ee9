"""The tests, laid out as src/tomolens is. Shared pieces are imported by their full name: `tests.core.grids`."""
