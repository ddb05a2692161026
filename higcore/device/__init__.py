"""Where things run: threads and memory of the host, CUDA devices, kernels on their threads."""
