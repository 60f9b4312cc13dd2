"""The EM loop as a pure state machine, its stopping rule, and how fits are seeded. NumPy only."""
