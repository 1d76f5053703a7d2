"""From a generator to stored training sets, and to other projects' formats."""
