"""Where it is measured: the servers, the programs that run, and what the kernel says of them."""
