"""From a revision to an environment."""
