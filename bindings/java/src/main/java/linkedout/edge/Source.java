package linkedout.edge;

/** What decided a ranking. */
public enum Source {
    /** What is in the videos, and prior and explore. */
    CONTENT,
    /** Nothing is known to be liked: the list begins with videos that differ. */
    COLD_START,
    /** Nothing was watched: the prior alone decided. */
    PRIOR
}
