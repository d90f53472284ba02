"""What an engine is: the operators, the program, the file and the report, which builder and runtime share."""
