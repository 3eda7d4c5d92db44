package linkedout.edge;

import org.jetbrains.annotations.NotNull;

/** What everything here throws: the message says what was wrong and how to fix it, and nothing has changed. */
public final class LinkedOutException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final @NotNull Status status;

    LinkedOutException(@NotNull Status status, @NotNull String message) {
        super(message);
        this.status = status;
    }

    /** Native code calls this. */
    LinkedOutException(int status, @NotNull byte[] message) {
        this(Status.of(status), Texts.decode(message));
    }

    public @NotNull Status status() {
        return status;
    }

    static <T> T need(T value, String name) {
        if (value == null) {
            throw argument(name + " is null: it has to be given");
        }
        return value;
    }

    static LinkedOutException argument(String message) {
        return new LinkedOutException(Status.ARGUMENT, message);
    }
}
