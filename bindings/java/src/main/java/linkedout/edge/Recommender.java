package linkedout.edge;

import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/**
 * An open bundle: ranks the videos that lie on a device by what its owner has watched.
 *
 * <pre>{@code
 * try (Recommender rec = Recommender.load("bundles/base");
 *         Store store = new Store(rec);
 *         History history = new History(rec)) {
 *     store.put(new Video("new.mp4", rec.encode(new Frames(rgb, 7, 144, 144), "Cats at sea"), "Cats at sea"));
 *     history.add(new Event("seen.mp4", featuresOfSeen));
 *     for (Ranked r : rec.rank(store, history)) System.out.println(r.id() + ": " + r.score());
 * }
 * }</pre>
 *
 * Everything here may be called from any thread, also on one object at the same time. Nothing opens a socket or writes a
 * file. What goes wrong is a {@link LinkedOutException}.
 */
public final class Recommender extends Handle {
    private final Info info;

    private Recommender(long handle) {
        super(Kind.RECOMMENDER, handle);
        info = new Info(this);
    }

    /** With the bundle's first precision, and ONNX Runtime from the system's search path. */
    public static @NotNull Recommender load(@NotNull String bundle) {
        return load(bundle, new LoadOptions());
    }

    /**
     * Open and check a bundle.
     *
     * @param bundle a bundle's folder
     */
    public static @NotNull Recommender load(@NotNull String bundle, @NotNull LoadOptions options) {
        LinkedOutException.need(bundle, "bundle");
        LinkedOutException.need(options, "options");
        Native.loadLibrary();
        return new Recommender(Native.load(
                Texts.encode(bundle),
                Texts.encode(options.precision),
                Texts.encode(options.onnxruntime),
                options.threads,
                options.withoutEncoder));
    }

    /** Version of the library, such as "0.1.0". */
    public static @NotNull String version() {
        Native.loadLibrary();
        return Texts.decode(Native.version());
    }

    /** What the bundle is. It stays known after {@link #close}. */
    public @NotNull Info info() {
        return info;
    }

    int featuresSize() {
        return info.featuresSize();
    }

    /**
     * Which of {@code total} frames the encoder takes, rising. An app that decodes only these may hand in only these.
     */
    public @NotNull long[] chooseFrames(long total) {
        return Native.chooseFrames(this, total);
    }

    /** Frames as the encoder gets them: uint8 [at most info().frames()][frameSize][frameSize][3]. */
    public @NotNull byte[] prepareFrames(@NotNull Frames frames) {
        Frames f = LinkedOutException.need(frames, "frames");
        return Native.prepareFrames(this, f.array, f.direct, f.offset, f.size, f.count, f.height, f.width);
    }

    /** All token ids of a title; the encoder reads the first info().titleTokens(). Half a character counts as "?". */
    public @NotNull int[] tokenize(@NotNull String title) {
        return Native.tokenize(this, Texts.encode(LinkedOutException.need(title, "title")));
    }

    /** Features of a video without a title. */
    public @NotNull byte[] encode(@NotNull Frames frames) {
        return encode(frames, null);
    }

    /** Features of a video: opaque bytes that you keep where you like, interchangeable within one token space. */
    public @NotNull byte[] encode(@NotNull Frames frames, @Nullable String title) {
        Frames f = LinkedOutException.need(frames, "frames");
        return Native.encode(
                this, f.array, f.direct, f.offset, f.size, f.count, f.height, f.width, Texts.encode(title));
    }

    /** Rank all of the store that was not watched. */
    public @NotNull Ranking rank(@NotNull Store store, @Nullable History history) {
        return rank(store, history, null, new RankOptions());
    }

    public @NotNull Ranking rank(
            @NotNull Store store, @Nullable History history, @Nullable List<@NotNull String> candidates) {
        return rank(store, history, candidates, new RankOptions());
    }

    /**
     * Rank videos of a store by what was watched. Neither changes.
     *
     * @param history null: nothing was watched. Its latest 192 events count.
     * @param candidates ids; one that comes twice counts once; one that is not in the store is among the failed. null:
     *     all videos of the store that were not watched.
     */
    public @NotNull Ranking rank(
            @NotNull Store store,
            @Nullable History history,
            @Nullable List<@NotNull String> candidates,
            @NotNull RankOptions options) {
        LinkedOutException.need(store, "store");
        LinkedOutException.need(options, "options");
        List<String> given = candidates == null ? null : new ArrayList<>(candidates);
        byte[] ids = given == null ? null : Texts.encode(given, "candidates");
        return new Ranking(options.rank(this, store, history, ids), given);
    }

    /** What the model believes the user likes, now. */
    public @NotNull TasteSummary taste(@Nullable Store store, @Nullable History history) {
        return taste(store, history, null);
    }

    /** @param now what ages are taken from; null: the present hour */
    public @NotNull TasteSummary taste(@Nullable Store store, @Nullable History history, @Nullable Instant now) {
        long number = Native.taste(this, store, history, now == null ? 0.0 : Seconds.of(now));
        try (Handle taste = new Handle(Kind.TASTE, number)) {
            int[] sizes = Native.tasteSizes(taste);
            List<Interest> likes = new ArrayList<>();
            for (int n = 0; n < sizes[1]; n++) {
                likes.add(new Interest(Native.tasteShare(taste, n), tasteVideos(taste, n)));
            }
            return new TasteSummary(
                    sizes[0],
                    Collections.unmodifiableList(likes),
                    tasteVideos(taste, Native.AVOIDED),
                    Native.tasteLayers(taste),
                    Texts.decode(Native.tasteSentence(taste)));
        }
    }

    private static List<String> tasteVideos(Handle taste, int interest) {
        return Collections.unmodifiableList(Texts.decodeList(Native.tasteVideos(taste, interest)));
    }
}
