"""Pure: numbers in, numbers out. No I/O, no clock, no git."""
