"""The command line: it reads arguments, calls the library and speaks."""
