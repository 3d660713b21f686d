"""All benchmarks, one after the other: `make bench`. Seconds unless the line says otherwise."""

import bench_engine
import bench_stats

from mlbench.environment import machine, versions

if __name__ == "__main__":
    print(machine())
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    bench_stats.main()
    bench_engine.main()
