"""Missing cells filled: what the observed cells say about them, with honest uncertainty."""
