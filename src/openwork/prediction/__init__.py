"""What a pattern would gain on a CPU that is not this one."""
