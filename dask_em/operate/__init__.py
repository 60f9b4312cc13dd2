"""Operating a run: what it leaves on disk while it works, how it goes on after it was killed, and how its output appears in one step."""
