"""From a corpus to a tuned index: factory strings with a ``Distill`` token, and suggestions of factory strings."""
