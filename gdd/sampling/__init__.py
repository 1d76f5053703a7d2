"""From a generator to stored training sets."""
