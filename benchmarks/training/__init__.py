"""What the benchmarks that train share: data, loops, stored results, tables and charts."""
