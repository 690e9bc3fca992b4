"""One checkout of any pool: the connections it holds, and where its statements go."""
