"""Pages and scripts for browsers. See README.md."""
