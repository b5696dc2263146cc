"""What dyetrace costs and what it can prove, measured; README.md beside this file says how to run each script."""
