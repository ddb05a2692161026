"""One run on several processes, the ranks of MPI: what they say, and who does what."""
