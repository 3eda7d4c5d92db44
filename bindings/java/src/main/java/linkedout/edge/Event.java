package linkedout.edge;

import java.time.Instant;
import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/** One watched video. It never changes: each {@code with…} gives another one. */
public final class Event {
    private final @NotNull String id;
    private final @Nullable byte[] features;
    private final @Nullable String title;
    private final double watched;
    private final @Nullable Boolean liked;
    private final @Nullable Instant at;

    /** Of a video that the history has already, watched to the end. */
    public Event(@NotNull String id) {
        this(LinkedOutException.need(id, "id"), null, null, 1.0, null, null);
    }

    public Event(@NotNull String id, @NotNull byte[] features) {
        this(id, features, null);
    }

    /** @param features {@link Info#featuresSize} bytes; the history keeps them */
    public Event(@NotNull String id, @NotNull byte[] features, @Nullable String title) {
        this(
                LinkedOutException.need(id, "id"),
                LinkedOutException.need(features, "features").clone(),
                title,
                1.0,
                null,
                null);
    }

    Event(String id, byte[] features, String title, double watched, Boolean liked, Instant at) {
        this.id = id;
        this.features = features;
        this.title = title;
        this.watched = watched;
        this.liked = liked;
        this.at = at;
    }

    /** @param watched fraction, 0 to 1; a low one is a skip */
    public @NotNull Event withWatched(double watched) {
        return new Event(id, features, title, watched, liked, at);
    }

    /** @param liked null: unknown */
    public @NotNull Event withLiked(@Nullable Boolean liked) {
        return new Event(id, features, title, watched, liked, at);
    }

    /** @param at null: of unknown age; in the future counts as now */
    public @NotNull Event withAt(@Nullable Instant at) {
        return new Event(id, features, title, watched, liked, at);
    }

    public @NotNull String id() {
        return id;
    }

    /** A copy; null in an event that was made without. */
    public @Nullable byte[] features() {
        return features == null ? null : features.clone();
    }

    public @Nullable String title() {
        return title;
    }

    public double watched() {
        return watched;
    }

    public @Nullable Boolean liked() {
        return liked;
    }

    public @Nullable Instant at() {
        return at;
    }

    @Override
    public String toString() {
        return "Event(" + id + ", watched=" + watched + ", liked=" + liked + ", at=" + at + ")";
    }
}
