"""The options of all commands, each declared once, in the classes that the commands are called with."""
