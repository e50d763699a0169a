"""The pipeline in virtual time, from seeds. See chaos/README.md."""
