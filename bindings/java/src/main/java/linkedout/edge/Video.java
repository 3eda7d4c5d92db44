package linkedout.edge;

import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/** A video as it is kept: what {@link Recommender#encode} made of it, and what it is called. */
public final class Video {
    private final @NotNull String id;
    private final @NotNull byte[] features;
    private final @Nullable String title;
    private final @NotNull String content;

    public Video(@NotNull String id, @NotNull byte[] features) {
        this(id, features, null);
    }

    public Video(@NotNull String id, @NotNull byte[] features, @Nullable String title) {
        this(id, features, title, "");
    }

    /**
     * @param id not empty, at most 65,536 characters
     * @param features {@link Info#featuresSize} bytes
     * @param title what it was encoded with
     * @param content a hash of what it was made of, if you have one
     */
    public Video(@NotNull String id, @NotNull byte[] features, @Nullable String title, @NotNull String content) {
        this.id = LinkedOutException.need(id, "id");
        this.features = LinkedOutException.need(features, "features").clone();
        this.title = title;
        this.content = LinkedOutException.need(content, "content");
    }

    public @NotNull String id() {
        return id;
    }

    /** A copy: keep it where you like. */
    public @NotNull byte[] features() {
        return features.clone();
    }

    public @Nullable String title() {
        return title;
    }

    public @NotNull String content() {
        return content;
    }

    @Override
    public String toString() {
        return "Video(" + id + ")";
    }
}
