"""Rules for single operators that the spellings of larger functions hold too: they come when all others have
had their turn."""
