"""From an environment to records: the repro protocol, one run, rounds, host guard, the ledger."""
