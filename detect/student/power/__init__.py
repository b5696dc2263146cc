"""How much a trace needs: simulated students, and a plan's forecast."""
