"""Experiments of the paper, their figures and tables, and the measurements of speed."""
