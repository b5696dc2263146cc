"""Twins: was a suspect taught by the answers that were served, or could it as well be the withheld ones."""
