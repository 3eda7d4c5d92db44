package linkedout.edge;

import java.time.Instant;
import org.jetbrains.annotations.NotNull;

/** What was watched, oldest first, and the features of it. The latest 256 events are kept. */
public final class History extends Handle {
    private final int featuresSize;

    /** An empty one. */
    public History(@NotNull Recommender recommender) {
        this(
                LinkedOutException.need(recommender, "recommender"),
                Native.createHistory(recommender));
    }

    private History(Recommender recommender, long handle) {
        super(Kind.HISTORY, handle);
        featuresSize = recommender.featuresSize();
    }

    /** From what {@link #save} gave, here or in another language. */
    public static @NotNull History load(@NotNull Recommender recommender, @NotNull byte[] saved) {
        LinkedOutException.need(recommender, "recommender");
        return new History(recommender, Native.loadHistory(recommender, LinkedOutException.need(saved, "saved")));
    }

    /** Note that a video was watched, after all others. Its features are copied. */
    public synchronized void add(@NotNull Event event) {
        LinkedOutException.need(event, "event");
        Boolean liked = event.liked();
        Instant at = event.at();
        Native.add(
                this,
                Texts.encode(event.id()),
                Texts.encode(event.title()),
                event.features(),
                event.watched(),
                liked == null ? -1 : liked ? 1 : 0,
                at != null,
                at == null ? 0.0 : Seconds.of(at));
    }

    /** Remove the events of a video, and what is kept of it. How many events. */
    public synchronized int forget(@NotNull String id) {
        return Native.forget(this, Texts.encode(LinkedOutException.need(id, "id")));
    }

    /**
     * Remove all events since a moment. Of those of unknown age: what was added after one that goes, or to this object
     * since then. How many events.
     */
    public synchronized int forgetSince(@NotNull Instant since) {
        return Native.forgetSince(this, Seconds.of(LinkedOutException.need(since, "since")));
    }

    /** How many events there were. */
    public synchronized int clear() {
        return Native.clear(this);
    }

    public int size() {
        return Native.historyCount(this);
    }

    /** By position, 0 being the oldest. */
    public synchronized @NotNull Event get(int position) {
        double[] event = Native.historyEvent(this, position); // watched, liked, has_at, at
        String title = text(position, Native.TEXT_TITLE);
        return new Event(
                text(position, Native.TEXT_ID),
                Native.historyFeatures(this, position, featuresSize),
                title.isEmpty() ? null : title,
                event[0],
                event[1] < 0 ? null : event[1] == 1,
                event[2] == 0 ? null : Seconds.instant(event[3]));
    }

    /** As bytes, the same in every language. They are yours to keep, and to delete. */
    public @NotNull byte[] save() {
        return Native.save(this);
    }

    private String text(int position, int which) {
        return Texts.decode(Native.historyText(this, position, which));
    }
}
