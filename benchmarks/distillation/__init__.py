"""The real experiment: a teacher marks, students learn from it, and are traced."""
