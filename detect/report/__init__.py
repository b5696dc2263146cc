"""The record of a detection as JSON (`schema`), in a terminal (`terminal`) and as one HTML page (`html`)."""
