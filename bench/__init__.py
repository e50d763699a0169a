"""The benchmarks: ours beside its peers, on the same work, in the same run. See bench/README.md."""
