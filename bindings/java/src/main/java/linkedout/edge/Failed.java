package linkedout.edge;

import org.jetbrains.annotations.NotNull;

/** A candidate that could not be ranked. */
public final class Failed {
    private final @NotNull String id;
    private final @NotNull Status status;
    private final int position;

    Failed(String id, Status status, int position) {
        this.id = id;
        this.status = status;
        this.position = position;
    }

    public @NotNull String id() {
        return id;
    }

    /** Why: {@link Status#NOT_FOUND}. */
    public @NotNull Status status() {
        return status;
    }

    /** Where it stands in the candidates as given. */
    public int position() {
        return position;
    }

    @Override
    public String toString() {
        return id + ": " + status;
    }
}
