"""What each command of the command line does, with what it needs, which takes seconds to import."""
