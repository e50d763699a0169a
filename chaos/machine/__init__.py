"""What runs: private servers, and the processes of the pipeline."""
