"""Click commands, one file each: parse, call, print."""
