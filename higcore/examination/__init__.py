"""What `check_solver` and `check_network` are made of."""
