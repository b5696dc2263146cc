"""Language models, the owner's and suspects': what they read, whether they are sound, and what they predict."""
