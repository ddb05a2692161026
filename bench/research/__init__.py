"""Why AdaptiveHIG is as it is: its parts changed one at a time and together, on all problems."""
