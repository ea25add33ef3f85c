//! Nothing but tests, in `tests/`: those that need the real world, and the house rules.
