// edition = 1
