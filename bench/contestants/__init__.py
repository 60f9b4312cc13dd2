"""One script a contestant. They run by themselves, some of them in another Python: nothing here imports the rest of the benchmarks."""
