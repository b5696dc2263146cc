"""Reports: what each kind tells, the paper that it is drawn on, and how it is verified and computed anew."""
